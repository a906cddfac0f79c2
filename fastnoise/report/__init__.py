"""Reports: one self-contained HTML page of a run, a sweep or a study, made from its folder alone."""

from .page import write_report

__all__ = ["write_report"]
