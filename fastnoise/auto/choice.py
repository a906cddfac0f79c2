"""Which method for these labels."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import RunConfig
from ..data import ImageDataset
from ..errors import ConfigError
from ..methods import options_of
from ..options import AUTO
from ..recipes import recipe
from .findings import Findings, probe
from .table import NEAR, Arm, MethodTable, require_options, shipped

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Choice:
    """What a probe found, and the method that follows from it."""

    arm: Arm
    findings: Findings
    lines: tuple[str, str, str]
    """What was found, what is chosen, and why."""

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
        if not options_of(self.arm.method).by_rate:
            return None
        return round(min(0.95, max(0.01, self.findings.rate)), 2)

    def words(self) -> list[str]:
        """The words of `fastnoise train` that take the place of --method auto."""
        rate = self.noise_rate()
        return [*self.arm.words(), *([] if rate is None else ["--noise-rate", f"{rate:g}"])]


def choose(
    config: RunConfig,
    dataset: ImageDataset | None = None,
    console: "Console | None" = None,
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
        table: that the choice goes by; None: the one that comes with fastnoise.

    ConfigError where there is nothing to choose: another task than classification, too few images for a probe.
    """
    if config.method.method != AUTO:
        raise ConfigError(f"the configuration has method {config.method.method}; choose() takes one of method {AUTO}")
    table = table or shipped()
    found = probe(config, dataset, console)
    return decide(found, kind_of(config), table)


def kind_of(config: RunConfig) -> str:
    """The kind of settings of the table that a run is compared with."""
    return "features" if config.data.dataset.startswith("features:") else "images"


def decide(found: Findings, kind: str, table: MethodTable) -> Choice:
    """The choice that follows from what was found."""
    ranked = table.expected(found, kind)
    best = ranked[0]
    arm = Arm.parse(best.arm)
    require_options(arm, options_of(arm.method))
    setting, distance = table.nearest(found, kind)
    plain = next((each for each in ranked if each.arm == "ce"), best)
    others = ", ".join(f"{each.arm} {each.loss:.1f}" for each in ranked[1:3])
    chosen = f"chosen: {best.arm}, which takes about {best.cost:.1f} times as long as cross-entropy"
    why = (
        f"why: on labels like these (most like {setting}) it is {best.loss:.1f} points below the best method at most "
        f"times, cross-entropy {plain.loss:.1f}" + (f"; next: {others}" if others else "")
    )
    if distance > NEAR:
        why += "; nothing in the table is much like these labels, so this is a guess: compare it with elr and ce"
    return Choice(arm, found, (found.describe(), chosen, why))
