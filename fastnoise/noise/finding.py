"""The rate of wrong labels that an earlier cleaning found. Imports no torch."""

import json

from ..errors import ConfigError, require
from ..files import FINDING, expanded
from ..options import Values


def read_rate(source: str) -> float:
    """The rate of wrong labels that `--noise-rate` names: a number, or that of the finding in a cleaning's folder.

    ConfigError if it is neither, or if the cleaning could not say.
    """
    try:
        return float(source)
    except ValueError:
        file = expanded(source) / FINDING
    try:
        rate = json.loads(file.read_text(encoding="utf-8"))["rate"]
    except FileNotFoundError:
        raise ConfigError(
            f"--noise-rate {source}: neither a number nor the folder of a fastnoise clean (it has no {FINDING}); "
            "give a rate as 0.2, or the --out of a fastnoise clean that has finished"
        ) from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"--noise-rate {source}: {FINDING} cannot be read: {error}") from None
    require(rate is not None, f"--noise-rate {source}: that cleaning could not tell the rate; give a number")
    return Values.of(float).read(f"--noise-rate {source}: the rate in {FINDING}", rate)
