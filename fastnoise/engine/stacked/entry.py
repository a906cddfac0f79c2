"""Decides which runs can be trained as one, and trains them."""

from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console

from ... import own
from ...config import Optimizer, RunConfig
from ...errors import ConfigError, TrainingError
from ...methods import METHODS, Method, find_method
from ...models.names import FITTED, LibraryModel
from ...options import AUTO
from ..checkpoint import place_of
from ..display import make_console
from ..prepare import check_run, load_images
from ..step import choose_amp, choose_device
from .stack import Stack, own_checkpoint, own_folder

PER_RUN = frozenset({"seed", "noise", "noise_seed", "labels", "run_dir"})
"""Fields in which stacked runs may differ."""


def stackable(configs: Sequence[RunConfig]) -> str | None:
    """Why these runs cannot be trained as one, in one line; None if they can.

    Some obstacles are only visible in the data; `train_stacked` finds these.
    """
    if not configs:
        return "there is no run to train"
    first, *rest = configs
    if first.method.method == AUTO:
        return "method auto looks at the labels of one run, and chooses its method"
    method = find_method(first.method.method)
    if not method.stackable:
        able = sorted(name for name, method in METHODS.items() if method.stackable)
        return f"method {first.method.method} trains in a way of its own; runs of {', '.join(able)} can be stacked"
    if method.predict is not Method.predict:
        return f"method {first.method.method} answers in a way of its own, which would be asked for all runs together"
    if own.is_own(first.model.model):
        return f"model {first.model.model} is one of your own, whose layers may mix what belongs to different runs"
    if LibraryModel.parse(first.model.model) is not None:
        return f"model {first.model.model} is another package's, whose layers may mix what belongs to different runs"
    if first.model.freeze != "none" or first.optim.backbone_rate != 1 or first.optim.layer_decay != 1:
        return "--freeze, --backbone-rate and --layer-decay name layers, which stacked runs have together; drop them"
    if obstacle := method.stack_obstacle(first.method):
        return obstacle
    if first.engine.amp == "fp16":
        return "fp16 loss scaling skips the steps of all runs if one overflows; take --amp bf16 or off"
    if first.data.balance != "none":
        return "--balance counts the labels of one run; drop it, or train the runs one by one"
    if first.data.epoch_batches is not None:
        return "--epoch-batches draws the samples of one run; drop it, or train the runs one by one"
    if first.optim.patience:
        return "--patience ends each run after an epoch of its own; drop it, or train the runs one by one"
    if first.optim.average_weights != "none" or Optimizer.parse(first.optim.optimizer).lookahead:
        return "--average-weights and lookahead keep further weights of one run; drop them"
    if first.data.grow_size != "none":
        return "--grow-size changes the images of the steps of one run; drop it"
    if first.model.model in FITTED:
        return f"model {first.model.model} makes its first layer from the images of one run"
    if first.engine.gradients:
        return "--gradients passes over the training set of one run; drop it"
    if first.engine.target_dtype != "float32":
        return "tables of 16 bits count the visits of one run's samples; drop --target-dtype"
    if first.engine.target_place != "device":
        return "--target-place host keeps the targets of one run; drop it"
    if first.engine.fused_norm == "on":
        return "stacked runs choose the memory format of their networks, and --fused-norm has its own; drop it"
    if first.engine.fused_head == "on":
        return "stacked runs compute the logits of all runs together, and --fused-head has none; drop it"
    if first.engine.profile:
        return "a profile is of one run; drop --profile"
    common = first.flat()
    for config in rest:
        for name, value in config.flat().items():
            if name not in PER_RUN and value != common[name]:
                return f"{name} differs: {common[name]} and {value}; runs with one {name} can be stacked"
    folders = [config.run_dir for config in configs if config.run_dir is not None]
    if len(set(folders)) < len(folders):
        return f"two runs have the folder {next(name for name in folders if folders.count(name) > 1)}"
    return None


def train_stacked(configs: Sequence[RunConfig], *, console: Console | None = None) -> list[dict[str, Any]]:
    """Train several runs at once as one batched computation on one device; each writes its run folder as `train` does.

    Each run has the weights, batches and augmentation that `train` gives it. Only rounding differs, and with dropout
    the masks, because all runs draw them from one stream of random numbers. If the `run_dir` of a run already holds it,
    the run continues from its checkpoint; a complete one is only read, unless its configuration has more epochs now.
    Runs that are behind others catch up first. `train` can resume the checkpoint of a stacked run, too.

    If one run's loss becomes NaN or infinite, the other runs continue. TrainingError is raised when they are done.

    Args:
        configs: they may differ only in the fields PER_RUN (`stackable`).
        console: where progress and a final table go; standard output by default.

    Returns:
        What each run's summary.json holds, in the order of `configs`. In "throughput", stacked_runs says how many runs
        were trained at once, images_per_second is the run's own share, and seconds and memory are the stack's.

    Raises:
        ConfigError: `stackable` gives a reason, or there is too little memory, or the epochs of the runs have different
            numbers of batches and the optimiser is not SGD.
        FastnoiseError: for anything else that the user can correct.
        Interrupted: after Ctrl-C or SIGTERM, once the states are saved.
    """
    obstacle = stackable(configs)
    if obstacle is not None:
        raise ConfigError(f"these runs cannot be stacked: {obstacle}")
    console = console or make_console()
    device = choose_device(configs[0].engine.device)
    if choose_amp(configs[0].engine.amp, device)[0] == torch.float16:
        raise ConfigError("runs are not stacked in fp16, because all runs would share its loss scaling; give --amp off")
    for config in configs:
        check_run(config)
    dataset = load_images(configs[0])
    if dataset.validation is not None:
        raise ConfigError(f"these runs cannot be stacked: {dataset.name} has a validation set of its own")
    summaries: dict[int, dict[str, Any]] = {}
    failures: list[str] = []
    places: dict[tuple[int, int], dict[int, RunConfig]] = {}
    for number, config in enumerate(configs):
        folder = own_folder(config)
        done = folder.read_summary() if folder is not None and folder.summary.exists() else None
        if done is not None and done.get("epochs") in (None, config.optim.epochs):
            summaries[number] = done
        else:
            places.setdefault(place_of(own_checkpoint(config)), {})[number] = config
    while places:
        here = min(places)
        members = places.pop(here)
        # A kill may leave some runs behind others that were already saved. The runs behind catch up first.
        ahead = min((place for place in places if place[1] == 0), default=None)
        last = None if ahead is None else ahead[0] - 1
        stack = Stack(list(members.values()), dataset, device, console, last)
        try:
            stack.begin()
            found = stack.train(*here, last)
        except TrainingError:
            if stack.records:
                raise
            found = []
        finally:
            stack.loaders.close()
            for record in stack.members:
                if record.folder is not None:
                    record.folder.release()
        failures += stack.failures
        number_of = dict(zip(stack.members, members, strict=True))
        if ahead is None:
            summaries |= {number_of[record]: summary for record, summary in zip(stack.records, found, strict=True)}
        else:
            for record in stack.records:
                places[ahead][number_of[record]] = record.config.replace({"run_dir": str(record.folder.path)})
            places[ahead] = dict(sorted(places[ahead].items()))
    if failures:
        others = f", the other {len(summaries)} are complete" if summaries else ""
        raise TrainingError(f"{len(failures)} of {len(configs)} runs failed{others}; {failures[0]}")
    return [summaries[number] for number in range(len(configs))]
