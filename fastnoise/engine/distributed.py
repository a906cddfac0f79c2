"""Several processes that train one run together, each on the samples of its own: who they are, and what they send.

The processes are those of torchrun, or of `fastnoise train --gpus N`, which starts them as torchrun does. Each trains
on its part of the samples (`methods.shards`) with a copy of the networks of its own. All of them begin with the same
weights and update them by the mean of their gradients, so that they stay the same. The gradient is all that a step
sends; everything else is sent between epochs. There is no wrapper around the networks.

A run in one process has a `World` of size 1, which starts nothing, sends nothing and changes no bit.
"""

import gc
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import RunConfig
from ..errors import ConfigError, FastnoiseError, TrainingError
from ..methods import Method
from ..methods.shards import Shards
from ..models import Outputs
from .prepare import RunData
from .record import Record
from .signals import Interrupted

Value = TypeVar("Value")

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others, one of which may be downloading or decoding a data set for all."""

TICK, GRACE = 1.0, 10.0
"""Seconds between two looks at whether another process has ended the run, and until one that has not noticed is ended.
"""

_FOLDER, _FINAL = "run-folder", "final"
"""Keys in the store: of the run's folder, and of the exit code of a run that must not start again."""

VOTE_EVERY = 8
"""Steps between two questions whether to save or to stop inside an epoch. The answer is taken at the next question, so
that no step waits for it."""


class LostContact(TrainingError):
    """Another process of the run has ended, or can't be reached."""


class Silenced(SystemExit):
    """The end of a process that has nothing to say, since another one of the run has said it."""


def processes_around() -> int:
    """How many processes the environment says this one is of (WORLD_SIZE); ConfigError if that is no number."""
    return _number("WORLD_SIZE", 1)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit() or (name == "WORLD_SIZE" and int(text) < 1):
        raise ConfigError(f"the environment has {name}={text!r}, which is no number of processes; start by torchrun")
    return int(text)


class World(Shards):
    """The processes of a run, as one of them sees them.

    Args:
        rank: its number.
        size: how many there are.
    """

    device: str = "auto"
    """Of this process, as --device names it."""
    backend: str = "none"
    store: dist.Store | None = None
    """What the processes share beside their messages; torchrun keeps it while it starts them again and again."""
    seconds: float = 0.0
    """Time spent in collectives on the CPU since the last `took`: in the gradient's, and in those of `sum_` and
    `gathered`, which layers of the network call."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size
        self.neighbours = min(_number("LOCAL_WORLD_SIZE", size), size) if size > 1 else 1
        """The processes of the run on this machine; all of them if the environment does not say."""
        self.restarts = _number("TORCHELASTIC_RESTART_COUNT", 0) if size > 1 else 0

    def __deepcopy__(self, memo: object) -> "World":
        return self  # layers that send have it, and networks are copied

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and shows."""
        return self.rank == 0

    @classmethod
    def alone(cls) -> "World":
        """The world of a run in one process; ConfigError if this one is of several, each of which would train it."""
        if (size := processes_around()) > 1:
            raise ConfigError(
                f"this is one of {size} processes (WORLD_SIZE), and each would do the same; several processes train "
                "one run by fastnoise train alone: start this without torchrun"
            )
        return cls()

    @classmethod
    def meet(cls, device: str) -> "World":
        """Meet the other processes that the environment speaks of, as torchrun sets it.

        Args:
            device: as --device names it. With CUDA a process takes the GPU of its number on its machine.

        Raises:
            ConfigError: the environment or the device does not fit several processes.
        """
        if (size := processes_around()) == 1:
            return cls()
        if missing := [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
            raise ConfigError(
                f"the environment has WORLD_SIZE={size} and no {missing[0]}; start the processes by torchrun "
                "--nproc-per-node N -m fastnoise.cli train ..., or fastnoise train --gpus N ..."
            )
        world = cls(_number("RANK", 0), size)
        local = _number("LOCAL_RANK", 0)
        cuda = device != "cpu" and torch.cuda.is_available()
        if device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"--device {device}: several processes take a GPU each; give --device cuda or cpu")
        if cuda and local >= torch.cuda.device_count():
            raise ConfigError(
                f"{local + 1} or more processes on a machine with {torch.cuda.device_count()} GPU(s); start fewer, or "
                "give --device cpu"
            )
        world.device = f"cuda:{local}" if cuda else device
        world.backend = "nccl" if cuda else "gloo"
        if cuda:
            torch.cuda.set_device(local)
        with world._contact():
            world.store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
            if world.restarts and world.store.check([_FINAL]):  # the last start has said why
                raise Silenced(int(world.store.get(_FINAL)))
            # torchrun keeps one store for all starts: without a prefix processes would look for the dead of the last.
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=dist.PrefixStore(f"start-{world.restarts}", world.store),
                rank=rank,
                world_size=size,
                timeout=PATIENCE,
            )
        return world

    def close(self, *, failed: bool = False) -> None:
        """Leave the others. NCCL, which may wait for what a failed step has left on a GPU, is left to the process's
        end."""
        if self.size > 1 and dist.is_initialized() and not (failed and self.backend == "nccl"):
            gc.collect()  # captured steps hold NCCL's communicators
            with suppress(RuntimeError):
                dist.destroy_process_group()

    def took(self) -> float:
        """The seconds that collectives took on the CPU since this was last asked."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Around a collective whose time counts."""
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began

    # -- collectives: every process calls each, in the same order ---------------------------------------------

    def sum_(self, *tensors: Tensor) -> None:
        if self.size > 1:
            with self._contact(), self.timed():
                for tensor in tensors:
                    dist.all_reduce(tensor)

    def gathered(self, tensor: Tensor) -> Tensor:
        if self.size == 1:
            return tensor[None]
        found = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(self.size)]
        with self._contact(), self.timed():
            dist.all_gather(found, tensor.contiguous())
        return torch.stack(found)

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.size == 1:
            return number
        found = torch.tensor(number)
        with self._contact():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def earliest(self, step: int) -> int:
        """The smallest of the processes' numbers that is not negative; -1 if all are."""
        never = 1 << 60
        found = -self.largest(-(step if step >= 0 else never))
        return found if found < never else -1

    def first(self, of: Callable[[], Value]) -> Value:
        """What `of` returns in the first process. Only that one calls it; the others take its value, pickled."""
        if self.size == 1:
            return of()
        found: list[Any] = [of() if self.main else None]
        with self._contact():
            dist.broadcast_object_list(found)
        value: Value = found[0]
        return value

    def main_first(self, of: Callable[[], Value]) -> Value:
        """What `of` returns in each process, where the others call it when the first has: it may leave them files."""
        if self.main:
            value = of()
            self.largest(0)
            return value
        self.largest(0)
        return of()

    def everyones(self, value: Value) -> list[Value]:
        """The values of all processes in the order of ranks, pickled."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with self._contact():
            dist.all_gather_object(found, value)
        return found

    def equalise_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the first process, in place."""
        if self.size > 1:
            with self._contact(), torch.no_grad():
                for tensor in tensors:
                    whole = tensor.detach().contiguous()
                    dist.broadcast(whole, 0)
                    tensor.copy_(whole)

    @torch.no_grad()
    def average_statistics(self, *modules: nn.Module) -> None:
        """Give batch norm's running statistics in all processes the mean of what each has seen.

        Those of networks, whatever the layer; of other modules (averaged copies) those of batch norm.
        """
        if self.size == 1:
            return
        for module in modules:
            for layer in module.modules():
                if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.running_mean is not None:
                    assert layer.running_var is not None
                    for buffer in (layer.running_mean, layer.running_var):
                        self.sum_(buffer)
                        buffer /= self.size

    # -- passes over images that the processes share ----------------------------------------------------------

    def padded(self, count: int) -> NDArray[np.int64]:
        """This process's positions among 0..count - 1, int64; the last ones repeat, so that all have as many."""
        positions = np.arange(self.rank, self.rank + -(-count // self.size) * self.size, self.size)
        return np.minimum(positions, count - 1)

    def interleaved(self, batches: Iterator[tuple[Outputs, Tensor]], count: int) -> Iterator[tuple[Outputs, Tensor]]:
        """The outputs for all `count` images in order, in every process, from each process's pass over `padded`."""
        begun = 0
        for outputs, index in batches:
            left = count - begun
            attention = None if outputs.attention is None else self._mixed(outputs.attention)[:left]
            yield Outputs(self._mixed(outputs.logits)[:left], attention), self._mixed(index)[:left]
            begun += len(index) * self.size

    def _mixed(self, rows: Tensor) -> Tensor:
        return self.gathered(rows).transpose(0, 1).flatten(0, 1)

    # -- faults ------------------------------------------------------------------------------------------------

    @contextmanager
    def _contact(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = str(error).splitlines()[0][:120]
            raise LostContact(
                f"process {self.rank} of {self.size} has lost another one of the run ({reason}); if nothing else was "
                "said, that one was killed; go on with --resume"
            ) from error

    def speaks(self) -> bool:
        """Whether this process is the one that says how the run ended: the first that asks. The others are silent."""
        if self.store is None:
            return True
        try:
            said: bytes = self.store.compare_set(self._ended, "", str(self.rank))
        except RuntimeError:  # nobody can be asked
            return True
        return said == str(self.rank).encode()

    @property
    def _ended(self) -> str:
        """The key in the store of who has said how this start ended."""
        return f"ended-{self.restarts}"

    def follow(self) -> None:
        """End this process some seconds after another one has said how the run ended, if it is still there.

        By gloo it hears of the end of another one at once. By NCCL it doesn't: the GPU waits for what never comes, and
        this process for the GPU, where no signal reaches it.
        """
        assert self.store is not None
        with suppress(RuntimeError):  # nobody can be asked any more
            while not self.store.check([self._ended]):
                time.sleep(TICK)
            if self.store.get(self._ended) != str(self.rank).encode():
                time.sleep(GRACE)
                os._exit(int(self.store.get(_FINAL)) if self.store.check([_FINAL]) else 1)

    def give_up(self, error: BaseException) -> None:
        """Note an end that another start would only repeat: what a user has to correct, and what he has asked for. A
        process that was killed, or that has lost another one, is no such end."""
        again = isinstance(error, LostContact)
        known = isinstance(error, FastnoiseError | Interrupted | KeyboardInterrupt | torch.OutOfMemoryError)
        if self.store is not None and known and not again:
            with suppress(RuntimeError):  # nobody is there to start again
                self.store.set(_FINAL, str(_exit_code(error)))


def require_together(config: RunConfig, data: RunData, world: World) -> None:
    """ConfigError if several processes can't train a run of this configuration and data."""
    if world.size > 1 and len(data.given) < world.size:
        raise ConfigError(f"{world.size} processes for {len(data.given)} training images: start fewer")
    engine = config.engine
    compiled = engine.compile == "on" or engine.gear in ("compiled", "compiled_graphed")
    if world.size > 1 and config.model.batch_norm == "sync" and compiled:
        raise ConfigError(
            "--batch-norm sync sends messages inside the network, which cannot be compiled: drop --gear compiled, "
            "--gear compiled_graphed or --compile on, or take --batch-norm local"
        )
    if world.size > 1 and config.model.batch_norm == "sync" and engine.fused_norm == "on":
        raise ConfigError(
            "--fused-norm on takes the statistics of each process's batch by itself: drop it, or take --batch-norm local"
        )


def note_folder(path: Path, world: World) -> None:
    """Note where the run is, for the case that its processes die and torchrun starts them again. For a new folder it is
    called before there is a file in it."""
    if world.main and world.store is not None:
        world.store.set(_FOLDER, str(path.absolute()))


def restarted(config: RunConfig, resume: bool, world: World) -> tuple[RunConfig, bool]:
    """The configuration of a run and whether it resumes, for processes that torchrun may have started again: then the
    run that its earlier processes have begun goes on."""
    if world.restarts == 0 or resume:
        return config, resume

    def earlier() -> str | None:
        if world.store is None or not world.store.check([_FOLDER]):
            return config.run_dir
        noted = Path(world.store.get(_FOLDER).decode())
        if not (noted / "config.toml").is_file():  # they died while they made it
            shutil.rmtree(noted, ignore_errors=True)
        return str(noted)

    found = world.first(earlier)
    if found is None or not (Path(found) / "config.toml").is_file():
        return config, False
    return config.replace({"run_dir": found}), True


@contextmanager
def together(device: str) -> Iterator[World]:
    """The world of a run, from the meeting of its processes to its end, however it ends.

    If an error ends the run, one process raises it, the first that has one, and the others end with its exit code and
    say nothing (`Silenced`).
    """
    world = World.meet(device)
    if world.backend == "nccl":
        threading.Thread(target=world.follow, name="fastnoise-follow", daemon=True).start()
    failed = True
    try:
        yield world
        failed = False
    except BaseException as error:
        world.give_up(error)
        if world.speaks():
            raise
        raise Silenced(_exit_code(error)) from None
    finally:
        world.close(failed=failed)


def _exit_code(error: BaseException) -> int:
    """Of a process that ends by an error."""
    if isinstance(error, Interrupted):
        return 128 + error.signal_number
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, FastnoiseError | torch.OutOfMemoryError) else 1


def share(world: World, networks: nn.Module, records: Iterable[Record]) -> None:
    """Give all processes what the steps of each have noted in an epoch that has ended."""
    if world.size == 1:
        return
    for record in records:
        world.average_statistics(networks, record.method)
        record.statistics.share(world)
        record.method.exchange()


def kept_apart(method: Method) -> set[str]:
    """The names of a method's buffers that differ between processes at the end of an epoch: tables of own samples, and
    what says which samples these are."""
    tables = method.sharded()
    return {*tables, *(f"{name.rpartition('.')[0]}.layout" for name in tables)}


def equalise(world: World, networks: nn.Module, records: Iterable[Record]) -> None:
    """Give all processes what the first has made of an epoch's end: labels, methods and networks. All have computed
    the same from the same, but a library may round otherwise on another machine."""
    if world.size == 1:
        return
    for record in records:
        apart = kept_apart(record.method)
        world.equalise_(buffer for name, buffer in record.method.named_buffers() if name not in apart)
        world.equalise_((record.labels, *networks.parameters(), *networks.buffers()))


class Votes:
    """Agreement on when to save and when to stop, so that all processes do it before the same batch.

    Signals reach each process by itself, and clocks differ: the first process's clock counts, and a signal that one
    process has received becomes one of all.
    """

    stop = False
    """Whether training stops with the checkpoint that is due now."""

    def __init__(self, world: World):
        self.world = world
        self._asked: tuple[Tensor, Any] | None = None

    def inside(self, number: int, signals: list[int], due: Callable[[], bool]) -> bool:
        """Whether a checkpoint is due after batch `number` of an epoch, which is not its last."""
        world = self.world
        if world.size == 1:
            self.stop = bool(signals)
            return self.stop or due()
        if number % VOTE_EVERY:
            return False
        save = self._answer(signals)
        if not save:
            ballot = torch.tensor([signals[0] if signals else 0, world.main and due()], dtype=torch.int64)
            with world._contact():
                self._asked = ballot, dist.all_reduce(ballot, dist.ReduceOp.MAX, async_op=True)
        return save

    def after_epoch(self, signals: list[int], due: bool) -> bool:
        """Whether a checkpoint is due at the end of an epoch."""
        if self.world.size > 1:
            self._answer(signals)
            number = self.world.largest(signals[0] if signals else 0)
            if number and not signals:
                signals.append(number)
            self.stop = bool(number)
            due = bool(self.world.largest(int(due and self.world.main)))
        else:
            self.stop = bool(signals)
        return self.stop or due

    def _answer(self, signals: list[int]) -> bool:
        """The answer to the last question inside an epoch."""
        if self._asked is None:
            return False
        (ballot, work), self._asked = self._asked, None
        with self.world._contact():
            work.wait()
        number, due = ballot.tolist()
        if number and not signals:
            signals.append(number)
        self.stop = bool(number)
        return bool(number or due)
