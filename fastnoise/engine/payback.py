"""Decides whether compiling a step saves more time than it takes.

Cost and gain are known only afterwards: the seconds of the first step, which compiles, and the difference between
epochs with and without compiled steps. `StepTimes` keeps the measurements of runs in a small file of the user's cache
folder. Later runs of the same network on the same device decide by them. Until both sides are measured, the constants
below stand for what is missing. Therefore two runs of one command may take different gears, and differ by rounding.
--gear and --compile fix the choice.
"""

import datetime
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..config import RunConfig, parse_compile_options
from ..errors import FastnoiseError
from ..files import cache_folder, write_json
from ..methods import Method
from ..models.heads import chooses_fused_head
from ..models.names import bare
from ..models.norm import chooses_fused

SECONDS_PER_LAYER = 0.5
"""Assumed: what Inductor takes, without a warm cache, for each layer with weights of its own. On an H100's host of 16
cores ResNet-34 (74 of them) took 26 to 28 s and ResNet-18 (42) 22 s (benchmarks/results/gpu)."""

SECONDS_PER_ELEMENT = 1.75e-12
"""Assumed: what compiling gains in a step for each number that an operation of the forward pass writes, in half
precision; twice that in full precision. Fused kernels save passes over activations, so the gain goes with their size.
On an H100 a step of ResNet-34 on 128 images of 32 x 32 pixels (444 million numbers) was 0.77 ms shorter, of 5.2."""

MOST_ENTRIES = 500
"""Networks that the file of measured times keeps, the latest."""


class Cost(NamedTuple):
    """The cost and gain of compiling the steps of a run."""

    seconds: float
    """Once, in the first step."""
    gained: float
    """Seconds gained in each step; negative if compiled steps are slower."""
    sources: tuple[str, str] = ("assumed", "assumed")
    """Where the two come from."""
    obstacle: str = ""
    """Why the network cannot be compiled at all."""
    note: str = ""
    """What was wrong with the file of measured times."""

    def pays(self, steps: int) -> tuple[bool, str]:
        """Whether compiling pays for `steps` steps, and the calculation in words."""
        note = f" ({self.note})" if self.note else ""
        if self.obstacle:
            return False, f"not compiled: {self.obstacle}{note}"
        whole = self.gained * steps
        pays = whole > self.seconds
        takes, saves = ("takes", "saves") if pays else ("would take", "save")
        gain = "nothing" if self.gained <= 0 else f"about {_short(1e3 * self.gained)} ms"
        return pays, (
            f"{'compiled' if pays else 'not compiled'}: compiling {takes} about {_short(self.seconds)} s "
            f"({self.sources[0]}) and {saves} {gain} ({self.sources[1]}) in each of {steps:,} steps, "
            f"{max(0.0, whole):.0f} s in all{note}"
        )


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


UNKNOWN_NETWORK = Cost(74 * SECONDS_PER_LAYER, 444e6 * SECONDS_PER_ELEMENT)
"""For a network of which nothing is known: that of ResNet-34 at batch 128."""


class Times(NamedTuple):
    """Seconds that runs on one device measured with one network; None: not yet."""

    compiling: float | None = None
    """The first step of a run, compilation included. It is short where Inductor has what it made before."""
    compiled_step: float | None = None
    plain_step: float | None = None


class _Written(TorchDispatchMode):
    """Counts the numbers that operations write, without those that only give a view."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        main = result[0] if isinstance(result, (tuple, list)) and result else result
        views = any(arg.alias_info is not None and not arg.alias_info.is_write for arg in func._schema.arguments)
        if isinstance(main, Tensor) and not views:
            self.numbers += main.numel()
        return result


@torch.no_grad()
def written_numbers(networks: Sequence[nn.Module], shape: Sequence[int]) -> int:
    """How many numbers the operations of a forward pass write, for images of `shape`, batch first.

    The pass is made on PyTorch's meta device, in a fraction of a second; networks stay as they are. Raises what a
    network raises that cannot run there.
    """
    count = _Written()
    for network in networks:
        tensors = dict([*network.named_parameters(), *network.named_buffers()])
        meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
        images = torch.empty(*shape, device="meta")
        with count:
            torch.func.functional_call(network, meta, (images,))
    return count.numbers


def compile_cost(
    networks: Sequence[nn.Module], shape: Sequence[int], amp: torch.dtype | None, times: Times, note: str = ""
) -> Cost:
    """What compiling costs and gains for these networks, by what was measured, else by what is assumed.

    Args:
        shape: of a batch of images.
        amp: the autocast dtype.
        times: measured, as StepTimes.read gives them.
        note: what was wrong with their file.
    """
    if times.compiling is None:
        layers = sum(bool(module._parameters) for network in networks for module in network.modules())
        seconds, source = SECONDS_PER_LAYER * layers, "assumed"
    else:
        seconds, source = times.compiling, "measured"
    if times.compiled_step is not None and times.plain_step is not None:
        return Cost(seconds, times.plain_step - times.compiled_step, (source, "measured"), note=note)
    try:
        numbers = written_numbers(networks, shape)
    except Exception as error:  # whatever a network of the user's own does: the compiler would have to trace it too
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Cost(math.inf, 0.0, obstacle=f"the network cannot be followed without data ({reason})", note=note)
    gained = numbers * SECONDS_PER_ELEMENT * (1 if amp is not None else 2)
    return Cost(seconds, gained, (source, "assumed"), note=note)


def default_path() -> Path | None:
    """`fastnoise/step_times.json` under $XDG_CACHE_HOME, or ~/.cache; None for a user without a home."""
    folder = cache_folder()
    return None if folder is None else folder / "step_times.json"


def steps_key(
    config: RunConfig,
    method: Method,
    shape: Sequence[int],
    amp: torch.dtype | None,
    device: torch.device,
    loader: str,
    graphed: bool,
) -> str:
    """The words under which times of such steps are kept. `shape` is that of a batch; the device is a GPU."""
    words = {
        "gpu": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "method": config.method.method,
        "networks": method.networks,
        "model": bare(config.model.model),
        "width": config.model.width,
        "images": "x".join(str(size) for size in shape),
        "views": method.views,
        "amp": "off" if amp is None else str(amp).removeprefix("torch."),
        "loader": loader,
        "graphed": "yes" if graphed else "no",
        "options": ",".join(parse_compile_options(config.engine.compile_options)) or "none",
    }
    if chooses_fused(config.engine.fused_norm, device):
        words["norm"] = "fused"
    if method.fused_head and chooses_fused_head(config.engine.fused_head, device):
        words["head"] = "fused"
    return ", ".join(f"{name} {value}" for name, value in words.items())


class StepTimes:
    """The file of measured times: one JSON object, words that say what was measured -> seconds by the names of Times.

    Nothing depends on it. What cannot be read counts as not measured, and the next run writes the file anew; of two
    runs that write at once, one's figures are lost. Delete it to have all measured again.
    """

    def __init__(self, path: Path | None = None):
        self.path = default_path() if path is None else path

    def _content(self) -> dict[str, Any]:
        if self.path is None:
            raise FileNotFoundError
        content = json.loads(self.path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
        return content

    def read(self, key: str) -> tuple[Times, str]:
        """What was measured under `key`, and what is wrong with the file, in one line, or nothing."""
        try:
            entry = self._content().get(key, {})
            found = {name: entry[name] for name in Times._fields if name in entry}
            for name, seconds in found.items():
                if type(seconds) not in (int, float) or not 0 < seconds < math.inf:
                    raise ValueError(f"{name} is {seconds!r}")
            return Times(**found), ""
        except FileNotFoundError:
            return Times(), ""
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            reason = " ".join(str(error).split())[:100]
            return Times(), f"measured times are left out: {self.path} is damaged or cannot be read: {reason}"

    def count(self) -> int:
        """Networks of which the file holds anything; 0 where it cannot be read."""
        try:
            return len(self._content())
        except (OSError, ValueError, RecursionError):
            return 0

    def write(self, key: str, **seconds: float) -> str:
        """Keep what was measured, by the names of Times; returns why that failed, in one line, or nothing."""
        try:
            content = self._content()
        except (OSError, ValueError, RecursionError):
            content = {}
        earlier = content.pop(key, {})
        entry = {name: earlier[name] for name in Times._fields if isinstance(earlier, dict) and name in earlier}
        entry |= {name: round(value, 6) for name, value in seconds.items()}
        content[key] = entry | {"date": datetime.date.today().isoformat()}
        if self.path is None:
            return "the measured times of a step are not kept: the user has no home; set XDG_CACHE_HOME to a folder"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, dict(list(content.items())[-MOST_ENTRIES:]))
        except (OSError, FastnoiseError) as error:
            return f"the measured times of a step are not kept: {' '.join(str(error).split())}"
        return ""
