"""A run's networks as a programme that needs no fastnoise: torch.export's .pt2, or ONNX."""

import copy
import dataclasses
import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ConfigError, TrainingError
from ..files import write_atomically
from .predictor import Predictor

Form = Literal["normalised", "pixels"]
"""What a programme takes: images as the networks do, float32 [B, channels, H, W], or uint8 [B, H, W, channels]."""

FORMATS = (".pt2", ".onnx")
SIZES = (1, 5, 64)
"""Of the batches with which a programme is compared with the networks."""
CLOSE = 1e-5
"""Largest difference of a probability; of values and outputs it is relative to the largest."""
HEADER = "fastnoise.json"
"""Of a .pt2 file's extra files, and of an ONNX model's properties: what the programme takes and gives."""


class Programme(nn.Module):
    """What is exported: one tensor in, one out (`Predictor.forward`).

    Args:
        predictor: on the CPU.
        takes: which images.
    """

    def __init__(self, predictor: Predictor, takes: Form):
        super().__init__()
        self.predictor, self.takes = predictor, takes

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.predictor(self.predictor.normalised(images) if self.takes == "pixels" else images)
        return found


def export_program(predictor: Predictor, out: Path, pixels: NDArray[np.uint8], takes: Form = "normalised") -> float:
    """Write the networks as one programme that combines them as their evaluation does; returns the largest difference
    between its answers and theirs.

    Args:
        predictor: the networks.
        out: a file that ends in .pt2 or .onnx.
        pixels: uint8 [N, H, W, channels], N >= 1 images to compare on, in batches of 1, 5 and 64.
        takes: "normalised" for float32 [B, channels, H, W], (pixel / 255 - mean) / std; "pixels" for uint8
            [B, H, W, channels].

    The programme has one input, `images`, of any batch size, and one output: `Task.outcome`, for classes the
    probabilities, float32 [B, C]. The file holds a JSON document, `fastnoise.json`, with class names, sizes and
    normalisation.

    Raises:
        ConfigError: another ending, or the packages for ONNX are missing.
        TrainingError: the networks cannot be exported, or the programme answers otherwise than they do.
        CheckpointError: the file cannot be written.
    """
    form = out.suffix.lower()
    if form not in FORMATS:
        raise ConfigError(f"{out}: programmes are {' or '.join(FORMATS)} files; give the name such an ending")
    if form == ".onnx":
        require_onnx(out)
    plain = copy.deepcopy(predictor).cpu()
    programme = Programme(plain, takes).eval()
    example = _inputs(plain, pixels, 2, takes)
    said = json.dumps(_header(plain, takes))
    with _quiet():
        try:
            content, call = (_onnx if form == ".onnx" else _pt2)(programme, example, said)
        except Exception as error:  # whatever tracing and translating the networks' code raises
            cause: BaseException = error
            while cause.__cause__ is not None:  # which says what stands in the way, and the others what to read
                cause = cause.__cause__
            reason = " ".join(str(cause).split())[:200] or type(cause).__name__
            raise TrainingError(f"{out}: the networks cannot be exported: {reason}") from error
    worst = _difference(plain, call, pixels, takes)
    if not worst <= CLOSE:
        raise TrainingError(
            f"{out} is not written: the programme's answers differ from the networks' by up to {worst:.2g}, and "
            f"{CLOSE:g} is allowed; try the other format, .pt2 or .onnx"
        )
    write_atomically(out, lambda stream: stream.write(content))
    return worst


def require_onnx(out: Path) -> None:
    """ConfigError if a package that ONNX takes is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{out}: ONNX needs the package {error.name}; pip install 'fastnoise[onnx]'") from error


def _header(predictor: Predictor, takes: Form) -> dict[str, Any]:
    """What a programme takes and gives, for whoever uses it."""
    header, task = predictor.header, predictor.task
    keys = ("task", "class_names", "channels", "image_size", "eval_augment", "mean", "std", "method", "epoch")
    fields = {key: dataclasses.asdict(header)[key] for key in keys}
    return {"images": takes, "gives": task.gives, **fields}


def _inputs(predictor: Predictor, pixels: NDArray[np.uint8], size: int, takes: Form) -> Tensor:
    """A batch of `size` images as the programme takes them; the images are repeated if there are too few."""
    chosen = torch.from_numpy(np.resize(pixels, (size, *pixels.shape[1:])))
    return chosen if takes == "pixels" else predictor.normalised(chosen).contiguous()


def _batches() -> dict[str, Any]:
    """That a batch may be of any size."""
    return {"images": {0: torch.export.Dim("batch")}}


def _pt2(programme: Programme, example: Tensor, said: str) -> tuple[bytes, Callable[[Tensor], Tensor]]:
    """The content of a .pt2 file, and the programme in it."""
    with torch.no_grad():
        found = torch.export.export(programme, (example,), dynamic_shapes=_batches())
    stream = io.BytesIO()
    torch.export.save(found, stream, extra_files={HEADER: said})
    content = stream.getvalue()
    return content, torch.export.load(io.BytesIO(content)).module()


def _onnx(programme: Programme, example: Tensor, said: str) -> tuple[bytes, Callable[[Tensor], Tensor]]:
    """The content of an ONNX file, and the programme in it, run by ONNX Runtime on the CPU."""
    import onnx
    import onnxruntime

    with torch.no_grad():
        found = torch.onnx.export(
            programme,
            (example,),
            input_names=["images"],
            output_names=["outcome"],
            dynamic_shapes=_batches(),
            dynamo=True,
            verbose=False,
        )
    assert found is not None
    model = found.model_proto
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")  # lines of source code, with the folders of this machine
    onnx.helper.set_model_props(model, {HEADER: said})
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def call(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return content, call


def _difference(
    predictor: Predictor, call: Callable[[Tensor], Tensor], pixels: NDArray[np.uint8], takes: Form
) -> float:
    """The largest difference between the answers of a programme and those of the networks."""
    worst = 0.0
    for size in SIZES:
        images = _inputs(predictor, pixels, size, takes)
        with torch.no_grad():
            expected = predictor(predictor.normalised(images) if takes == "pixels" else images)
            found = call(images)
        if found.shape != expected.shape:
            raise TrainingError(f"the programme answers {list(found.shape)} for {size} images")
        scale = 1.0 if predictor.task.gives == "probability" else max(1.0, float(expected.abs().max()))
        difference = float((found - expected).abs().max()) / scale
        if not math.isfinite(difference):  # the largest of some numbers and NaN may be a number
            raise TrainingError(f"the programme or the networks answer NaN or infinity for {size} images")
        worst = max(worst, difference)
    return worst


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of the exporters and the code that they trace, which say nothing that the user can change."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
