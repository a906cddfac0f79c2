"""Reports: one self-contained HTML page of runs, a sweep or a study, made from their folders alone."""

from .page import write_comparison, write_report

__all__ = ["write_comparison", "write_report"]
