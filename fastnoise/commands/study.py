"""fastnoise study: the studies of heterogeneous label noise, a command each."""

from typing import Any

from ..studies import STUDIES, load_study
from .jobs import until_stopped

HELP = f"""usage: fastnoise study NAME [OPTIONS]

Measures how wrong labels of some classes, tasks, labels or values affect the others.
A study trains what it needs, and writes a figure and its data. If it was stopped, the
same command continues it. `--quick` runs a small version.

studies:
{chr(10).join(f"  {name:<12}{what}" for name, what in STUDIES.items())}

`fastnoise study NAME --help` lists a study's options. Examples:
  fastnoise study multiclass --quick
  fastnoise study regression --out angles --jobs 2
"""


def options_type(name: str) -> Any:
    """The dataclass of a study's options; ConfigError for an unknown study."""
    return load_study(name).Options


def run(name: str, options: Any) -> int:
    """Run a study; returns 0, or 130 or 143 when stopped by a signal.

    ConfigError, DataError, CheckpointError and TrainingError in one line.
    """
    from ..engine.display import make_console

    def study() -> int:
        load_study(name).run(options, make_console())
        return 0

    return until_stopped(study)
