"""Which method for these labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from ..cleaning.pool import Judged
from ..config import RunConfig
from ..data import ImageDataset
from ..engine.prepare import check_run, create_parts
from ..engine.step import choose_device
from ..errors import ConfigError
from ..methods import find_method, options_of, require_parallel
from ..options import AUTO
from ..recipes import USUAL_METHOD, recipe
from .findings import Findings, TooLittle, look_at, probe
from .table import NEAR, Arm, MethodTable, shipped

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Choice:
    """What a probe found, and the method that follows from it."""

    arm: Arm
    findings: Findings | None
    """None if there was too little for a look."""
    lines: tuple[str, ...]
    """What was found, what is chosen, and why; or that there was too little for a look."""

    def config(self, asked: RunConfig) -> RunConfig:
        """The configuration of the run: the recipe of the chosen method, with whatever `asked` (a configuration of
        method auto) has other than the recipe of auto."""
        data, noise = asked.data, asked.noise
        given: dict[str, Any] = {"labels": noise.labels, "limit_train": data.limit_train}
        given |= {"recipe": asked.optim.recipe}
        before = recipe(AUTO, data.dataset, noise.noise, **given).flat()
        changes = {name: value for name, value in asked.flat().items() if before.get(name) != value}
        rate = self.noise_rate()
        if rate is not None:
            given["noise_rate"] = rate
        chosen = recipe(self.arm.method, data.dataset, noise.noise, **given)
        changes = {name: value for name, value in changes.items() if name not in ("method", "noise_rate")}
        return chosen.replace({**changes, **self.arm.changes()})

    def noise_rate(self) -> float | None:
        """The rate of wrong labels that the chosen method gets, if it goes by one."""
        if self.findings is None or not options_of(self.arm.method).by_rate:
            return None
        return round(min(0.95, max(0.01, self.findings.rate)), 2)

    def told(self) -> dict[str, Any]:
        """What `train` says and keeps of the choice: its arguments `notes` and `details`."""
        details = {} if self.findings is None else {AUTO: self.findings.row()}
        return {"notes": list(self.lines), "details": details}

    def words(self) -> list[str]:
        """The words of `fastnoise train` that take the place of --method auto."""
        rate = self.noise_rate()
        return [*self.arm.words(), *([] if rate is None else ["--noise-rate", f"{rate:g}"])]


def choose(
    config: RunConfig,
    dataset: ImageDataset | None = None,
    console: "Console | None" = None,
    *,
    parallel: bool = False,
    fall_back: bool = False,
    table: MethodTable | None = None,
) -> Choice:
    """Look at the labels, and choose the method that did best on labels like these.

        config = recipe("auto", "folder:photos")
        choice = choose(config)
        fastnoise.train(choice.config(config))

    Args:
        config: of a run by method auto.
        dataset: images and labels in memory, instead of the data set that `config` names.
        console: gets a line before the probe begins.
        parallel: whether several processes are to train the run together, which some methods can't.
        fall_back: whether the choice is USUAL_METHOD, and says so, where there is too little for a look.
        table: that the choice goes by; None: the one that comes with fastnoise.

    ConfigError where there is nothing to choose: another task than classification, options with which no method of the
    table can run; and TooLittle, which is one, without `fall_back`.
    """
    if config.method.method != AUTO:
        raise ConfigError(f"the configuration has method {config.method.method}; choose() takes one of method {AUTO}")
    table = table or shipped()
    choose_device(config.engine.device)  # which refuses one that there isn't
    judged = look_at(config, dataset)
    try:
        found = probe(config, judged, console)
    except TooLittle:
        if not fall_back:
            raise
        line = f"too few images or epochs for a look at the labels, so the method is {USUAL_METHOD}"
        return Choice(Arm(USUAL_METHOD), None, (f"{line}; --method names another",))
    kind = "features" if judged.data.train.is_features else "images"
    able, refusal = [], None
    for text in table.arms(kind):
        arm = Arm.parse(text)
        try:
            if parallel:
                require_parallel(find_method(arm.method), arm.method)
            _try(Choice(arm, found, ()).config(config), judged, dataset)
            able.append(text)
        except ConfigError as error:
            refusal = error
    if not able:
        raise ConfigError(f"--method auto: no method of its table can run so: {refusal}")
    return decide(found, kind, table, able)


def _try(config: RunConfig, judged: Judged, dataset: ImageDataset | None) -> None:
    """ConfigError if a run would be refused, by its options or by what its method needs of network and data, or if most
    of it would be the method's prelude."""
    check_run(config, dataset)
    data = judged.data
    if config.optim.patience:  # which needs a validation set, and no network has any of those that are judged
        data = replace(data, validation=data.test, validation_given=data.given)
    # Weights are drawn, and no encoder is read.
    method, _ = create_parts(config, data, torch.device("cpu"), fresh=False)
    if 2 * method.prelude > config.optim.epochs:
        raise ConfigError(
            f"the first {method.prelude} of {config.optim.epochs} epochs would be {method.name}'s warm-up; give more "
            "--epochs"
        )


def decide(found: Findings, kind: str, table: MethodTable, arms: Sequence[str] | None = None) -> Choice:
    """The choice that follows from what was found.

    Args:
        found: by the probe.
        kind: images or features.
        table: that the choice goes by.
        arms: that can be had; None: all of the table.
    """
    ranked = table.expected(found, kind, arms)
    best = ranked[0]
    setting, distance = table.nearest(found, kind)
    plain = next((f", cross-entropy {each.below:.1f}" for each in ranked if each.arm == "ce" != best.arm), "")
    others = " and ".join(f"{each.arm} {each.below:.1f}" for each in ranked[1:3] if each.arm != "ce")
    guess = doubt = ""
    if found.blind:
        guess = "a guess, since the probe saw nothing (train longer, or with another network): "
    elif found.weak:
        doubt = "; the probe saw little, so compare it with elr and ce"
    elif distance > NEAR:
        doubt = "; nothing in the table is much like these labels, so this is a guess: compare it with elr and ce"
    why = (
        f"why: {guess}on labels like these (most like {setting}) it ends about {best.below:.1f} points below the best "
        "method" + plain + (f"; the next choices, by accuracy and time: {others}" if others else "") + doubt
    )
    chosen = f"chosen: {best.arm}, which takes about {best.cost:.1f} times as long as cross-entropy"
    return Choice(Arm.parse(best.arm), found, (found.describe(), chosen, why))
