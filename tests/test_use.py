"""fastnoise predict, evaluate and export: the networks of a run in use."""

import csv
import dataclasses
import importlib.util
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import _manual
import numpy as np
import pytest
import torch
from _forked import Forked
from _train_cases import TWO_EPOCHS
from PIL import Image
from test_model_files import OF_CLASSES, OWN, evaluated, in_memory

import fastnoise
from fastnoise.cli import main
from fastnoise.data.given import given_files
from fastnoise.engine.exporting import HEADER, export_program
from fastnoise.engine.predictor import Predictor
from fastnoise.errors import DataError, TrainingError
from fastnoise.models import Outputs
from fastnoise.recipes import recipe

CLASSES = ("a cat", "dög", "owl")
ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
needs_onnx = pytest.mark.skipif(not ONNX, reason="onnx, onnxscript or onnxruntime is not installed")


def picture(label: int, seed: int, side: int = 32) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 60, (side, side, 3), dtype=np.uint8)
    pixels[:, 10 * label : 10 * label + 8] = 230
    return Image.fromarray(pixels)


def photos(root: Path, count: int = 8) -> None:
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture(label, 100 * label + number).save(root / name / f"{number:03d}.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, a run of two networks on them, and pictures that it has not seen."""
    root = tmp_path_factory.mktemp("made")
    photos(root / "photos")
    words = ["--method", "coteaching", "--noise", "none", "--model", "small_cnn", "--epochs", "6", "--batch-size", "12"]
    words += ["--dataset", f"folder:{root / 'photos'}", "--loader", "torch", "--val-fraction", "0.2"]
    assert main(["train", *words, "--run-dir", str(root / "run")]) == 0
    new = root / "new"
    (new / "inner").mkdir(parents=True)
    (new / ".hidden").mkdir()
    picture(0, 1).save(new / "a.png")
    picture(1, 2, 50).save(new / "inner" / "b.jpg")
    picture(2, 3).save(new / ".hidden" / "c.png")
    (new / "notes.md").write_text("no image")
    return root


@pytest.fixture(autouse=True)
def _here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("run", "new", "photos"):
        shutil.copytree(made / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def table(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return list(csv.DictReader(stream))


# -- predict -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["1", "5", "64"])
def test_predictions_of_files_are_those_of_the_runs_evaluation(size: str, made: Path) -> None:
    single, logits = evaluated(made / "run")
    files = single.record.data.test.files
    assert main(["predict", "run", *files, "--out", "p.csv", "--batch-size", size]) == 0
    rows = table("p.csv")
    assert [row["file"] for row in rows] == list(files)
    expected = logits.softmax(1).numpy()
    found = np.array([[float(row[f"probability:{name}"]) for name in CLASSES] for row in rows])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert [row["predicted"] for row in rows] == [CLASSES[label] for label in expected.argmax(1)]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], expected.max(1), rtol=0, atol=1e-5)


def test_a_run_whose_photos_dali_decoded_is_used_as_it_was_evaluated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DALI resizes JPEG files to other pixels than Pillow, by up to 2 of 255."""
    pytest.importorskip("nvidia.dali")
    for label, name in enumerate(CLASSES):
        (Path("jpegs") / name).mkdir(parents=True)
        for number in range(8):
            shown = picture(label, 100 * label + number, 60 + 11 * number).resize((90 + 7 * number, 70))
            shown.save(f"jpegs/{name}/{number}.jpg", quality=90)
    words = ["--method", "ce", "--noise", "none", "--model", "small_cnn", "--epochs", "2", "--batch-size", "12"]
    words += ["--dataset", "folder:jpegs", "--image-size", "48", "--loader", "dali", "--run-dir", "by-dali"]
    assert main(["train", *words]) == 0
    single, logits = evaluated(Path("by-dali"))
    files = single.record.data.test.files
    expected = logits.softmax(1).numpy()
    for size in (1, 5, 64):
        found = fastnoise.load("by-dali").predict_files(files, batch_size=size)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    capsys.readouterr()
    assert main(["evaluate", "by-dali", "folder:jpegs", "--out", "f.json"]) == 0
    assert "warning" not in capsys.readouterr().out
    last = json.loads(Path("by-dali/metrics.jsonl").read_text().splitlines()[-1])
    assert json.loads(Path("f.json").read_text())["accuracy"] == pytest.approx(last["test_accuracy"], abs=1e-12)
    monkeypatch.setattr("fastnoise.data.loaders._dali_obstacle", lambda device: "DALI is not installed")
    assert main(["predict", "by-dali", *files, "--out", "p.csv"]) == 0
    assert (
        "warning: the run's images were decoded by dali, and here by pillow (DALI is not installed): resized pixels "
        "differ by up to 2 of 255" in capsys.readouterr().out
    )
    by_pillow = np.array([[float(row[f"probability:{name}"]) for name in CLASSES] for row in table("p.csv")])
    assert 1e-7 < np.abs(by_pillow - expected).max() < 0.05


@pytest.mark.parametrize(("decoder", "here"), [("dali:cuda", "dali"), ("dali", "dali"), ("pillow", "pillow")])
def test_what_decodes_on_the_cpu(decoder: str, here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastnoise.data.loaders._dali_obstacle", lambda device: "")
    predictor = fastnoise.load("run")
    assert predictor.header.decoder == "pillow"
    predictor.header = dataclasses.replace(predictor.header, decoder=decoder)
    assert predictor.decoder == here
    assert predictor.decoder_note == (
        "the run's images were decoded by dali:cuda, and here by dali (the networks are on the device cpu): resized "
        "pixels differ by up to 2 of 255, and probabilities with them"
        if decoder == "dali:cuda"
        else ""
    )


def test_evaluate_into_a_closed_pipe_writes_its_file_and_ends_with_141() -> None:
    words = ["evaluate", "run", "folder:photos", "--out", "f.json"]
    process = Forked(*words)
    process.stdout.close()
    assert process.wait(timeout=300) == 141
    assert 0 <= json.loads(Path("f.json").read_text())["accuracy"] <= 1


def test_evaluate_says_that_test_labels_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", "folder:photos"]) == 0
    assert "images of folder:photos against the given labels, of which some may be wrong" in capsys.readouterr().out


def test_evaluate_says_that_it_takes_a_fifth_of_a_folder_without_parts(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (([], True), (["--split", "all"], False)):
        assert main(["evaluate", "run", "folder:photos", *words]) == 0
        assert ("has no test images of its own" in capsys.readouterr().out) == said, words


def test_folders_and_lists_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    (Path("lists")).mkdir()
    Path("lists/one.csv").write_text("label;Path\n1;../new/a.png\n", encoding="utf-8-sig")
    Path("lists/two.txt").write_text("../new/inner/b.jpg\n\n../new/a.png\n", encoding="utf-16")
    assert given_files(["new"]) == (["new/a.png", "new/inner/b.jpg"], 1)
    words = ["new", "list:lists/one.csv", "lists/two.txt", "new/a.png"]
    assert main(["predict", "run", *words, "--top", "2", "--out", "p.csv"]) == 0
    said = capsys.readouterr().out
    assert "1 file is no image and is left out" in said
    rows = table("p.csv")
    names = ["new/a.png", "new/inner/b.jpg", "lists/../new/a.png", "lists/../new/inner/b.jpg"]
    assert [row["file"] for row in rows] == [*names, "lists/../new/a.png", "new/a.png"]
    assert list(rows[0]) == ["file", "class_1", "probability_1", "class_2", "probability_2"]
    probs = fastnoise.load("run").predict_files(["new/a.png"])[0]
    order = np.argsort(-probs)
    assert [rows[0][f"class_{place}"] for place in (1, 2)] == [CLASSES[label] for label in order[:2]]
    assert float(rows[0]["probability_2"]) == pytest.approx(probs[order[1]], abs=1e-6)
    assert main(["predict", "run", "new"]) == 0
    assert f"new/a.png: {CLASSES[order[0]]}, {100 * probs[order[0]]:.2f} %\n" in capsys.readouterr().out


def test_images_that_cannot_be_read_are_named_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    Path("new/inner/c.png").write_bytes(Path("new/a.png").read_bytes()[:60])
    Path("new/d.png").write_bytes(b"no image")
    assert main(["predict", "run", "new", "--out", "p.csv"]) == 2
    line = capsys.readouterr().err
    assert "cannot read 2 of 4 images: new/d.png (" in line
    assert "new/inner/c.png (" in line
    assert line.endswith("replace or remove them, or leave them out by --skip-unreadable\n")
    assert not Path("p.csv").exists()
    assert main(["predict", "run", "new", "--out", "p.csv", "--skip-unreadable"]) == 0
    out = capsys.readouterr().out
    assert "left out new/d.png: " in out
    assert "left out new/inner/c.png: " in out
    assert [row["file"] for row in table("p.csv")] == ["new/a.png", "new/inner/b.jpg"]
    assert main(["predict", "run", "new/inner/c.png", "--skip-unreadable"]) == 2
    assert "none of the images can be read (1 given)" in capsys.readouterr().err


def test_photos_are_turned_upright_as_in_training(made: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open("new/a.png") as image:
        image.transpose(Image.Transpose.ROTATE_90).save("new/turned.png", exif=exif)
    predictor = fastnoise.load("run")
    assert predictor.header.exif
    upright, turned = predictor.predict_files(["new/a.png", "new/turned.png"])
    np.testing.assert_allclose(turned, upright, rtol=0, atol=1e-6)
    words = ["--dataset", "folder:photos", "--no-exif-orientation", "--model", "small_cnn", "--method", "ce"]
    assert main(["train", *words, "--epochs", "1", "--loader", "torch", "--run-dir", "as_stored"]) == 0
    upright, turned = fastnoise.load("as_stored").predict_files(["new/a.png", "new/turned.png"])
    assert not np.allclose(turned, upright, rtol=0, atol=1e-4)


def test_the_best_network_is_taken_when_it_is_asked_for() -> None:
    best = fastnoise.load("run", best=True)
    assert best.header.epoch <= 6
    expected = best.predict_files(["new/a.png"])
    assert main(["predict", "run", "new/a.png", "--best", "--out", "p.csv"]) == 0
    assert main(["predict", "run/model-best.safetensors", "new/a.png", "--out", "q.csv"]) == 0
    assert table("p.csv") == table("q.csv")
    assert float(table("p.csv")[0]["probability"]) == pytest.approx(expected.max(), abs=1e-6)


def test_names_that_are_not_utf8_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    odd = "new/" + b"caf\xe9".decode(errors="surrogateescape") + ".png"
    picture(0, 5).save(odd)
    assert main(["predict", "run", odd, "--out", "p.csv"]) == 0
    assert table("p.csv")[0]["file"] == odd
    assert "caf�.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give a run or a model file, and images"),
        (("run",), "give a run or a model file, and images"),
        (("run", "none"), "none: no such file or folder"),
        (("run", "empty"), "empty holds no images"),
        (("run", "pipe"), "pipe: is no regular file"),
        (("run", "new", "--top", "0"), "--top must be at least 1, not 0"),
        (("run", "new", "--batch-size", "0"), "--batch-size must be at least 1, not 0"),
        (("run", "new", "--device", "tpu9"), "--device tpu9"),
        (("run", "new", "--modle", "x"), "did you mean '--model'"),
        (("run", "new", "--model", "x.py:Y"), "which needs no code; drop --model"),
        (("run", "lost.csv"), "lost.csv: line 3: gone.png: no such file"),
        (("run", "bad.png"), "cannot read 1 of 1 image: bad.png ("),
        (("new", "new"), "new is no run's folder"),
        (("run/model.safetensors", "new", "--best"), "is a file, and --best chooses one in a run's folder"),
        (("run", "new", "--out", "gone/p.csv"), "cannot write gone/p.csv"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import os

    Path("empty").mkdir()
    os.mkfifo("pipe")
    Path("lost.csv").write_text("file\nnew/a.png\n./gone.png\n")
    Path("bad.png").write_bytes(b"\x89PNG and no more")
    assert message in refused(capsys, "predict", *words)


def test_a_refusal_of_words_imports_no_torch() -> None:
    import subprocess

    code = """
import sys
from fastnoise.cli import main
for words in (["predict"], ["evaluate", "run"], ["export", "run"], ["predict", "run", "new", "--top", "0"],
              ["evaluate", "run", "cifar11"]):
    assert main(words) == 2
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_grey_networks_take_photos_and_other_tasks_have_their_columns(capsys: pytest.CaptureFixture[str]) -> None:
    for task in ("multilabel", "regression"):
        dataset = in_memory(task)
        changes = {"epochs": 1, "width": 0.25, "model": "small_cnn", "run_dir": task}
        fastnoise.train(recipe("plain", dataset.name, "none").replace(changes), dataset=dataset)
    assert main(["predict", "multilabel", "new", "--out", "p.csv"]) == 0
    assert main(["predict", "regression", "new", "--out", "q.csv"]) == 0
    grey = np.stack([np.asarray(Image.open("new/a.png").resize((8, 8), Image.Resampling.BILINEAR).convert("L"))])
    labels, values = (fastnoise.load(task).predict(grey)[0] for task in ("multilabel", "regression"))
    row = table("p.csv")[0]
    assert list(row) == ["file", "predicted", "probability:0", "probability:1", "probability:2"]
    assert [float(row[f"probability:{number}"]) for number in range(3)] == pytest.approx(labels.tolist(), abs=1e-6)
    assert row["predicted"] == "; ".join(str(number) for number in range(3) if labels[number] > 0.5)
    assert [float(table("q.csv")[0][f"value:{number}"]) for number in range(2)] == pytest.approx(values.tolist(), 1e-5)
    assert "has no one class an image" in refused(capsys, "predict", "multilabel", "new", "--top", "1")


# -- evaluate ------------------------------------------------------------------------------------------------


def test_evaluation_gives_the_runs_figures_and_those_of_each_class(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", "folder:photos", "--out", "f.json"]) == 0
    figures = json.loads(Path("f.json").read_text())
    last = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()][-1]
    for name in ("accuracy", "macro_f1", "loss"):
        assert figures[name] == pytest.approx(last[f"test_{name}"], abs=1e-5)
    predictor = fastnoise.load("run")
    test = fastnoise.data.load_dataset("folder:photos", None).test
    found = predictor.predict_files(test.files).argmax(1)
    matrix = np.zeros((3, 3), int)
    np.add.at(matrix, (test.labels, found), 1)
    assert figures["confusion"] == matrix.tolist()
    for label, name in enumerate(CLASSES):
        row = figures["classes"][name]
        assert row["images"] == matrix[label].sum()
        assert row["recall"] == pytest.approx(matrix[label, label] / matrix[label].sum())
        assert row["precision"] == pytest.approx(matrix[label, label] / max(1, matrix[:, label].sum()))
    said = capsys.readouterr().out
    assert f"accuracy: {100 * figures['accuracy']:.2f} %" in said
    assert "(predicted)" in said
    assert main(["evaluate", "run", "folder:photos", "--split", "all", "--out", "f.json"]) == 0
    assert json.loads(Path("f.json").read_text())["images"] == 24
    assert "against the given labels, of which some may be wrong" in capsys.readouterr().out


def test_classes_are_matched_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """A data set that lacks the first class counts its own from 0."""
    assert main(["evaluate", "run", "folder:photos", "--split", "all", "--out", "whole.json"]) == 0
    shutil.rmtree(f"photos/{CLASSES[0]}")
    assert main(["evaluate", "run", "folder:photos", "--split", "all", "--out", "part.json"]) == 0
    whole, part = (json.loads(Path(name).read_text()) for name in ("whole.json", "part.json"))
    assert part["confusion"] == [[0, 0, 0], *whole["confusion"][1:]]
    shutil.move(f"photos/{CLASSES[1]}", "photos/newt")
    line = refused(capsys, "evaluate", "run", "folder:photos")
    assert "classes that the network does not know: newt; its classes are a cat, dög, owl" in line


def test_data_sets_of_other_forms_or_sizes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "a set for classification has a class for each image" in refused(capsys, "evaluate", "run", "rotated")
    words = ["--dataset", "digits", "--limit-train", "96", "--epochs", "1", "--width", "0.25", "--method", "ce"]
    assert main(["train", *words, "--run-dir", "digits"]) == 0
    assert "classes that the network does not know" in refused(capsys, "evaluate", "digits", "folder:photos")
    assert "unknown dataset" in refused(capsys, "evaluate", "run", "cifar11")


# -- the README ----------------------------------------------------------------------------------------------


def test_the_commands_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    text = _manual.pages()["use.md"]
    block = re.findall(r"<!-- tests: use -->\n```bash\n(.*?)```\n.*?```python\n(.*?)```", text, re.DOTALL)
    ((commands, script),) = block
    Path("runs").mkdir()
    Path("run").rename("runs/nal-photos")
    programs = [shlex.split(line, comments=True) for line in commands.splitlines()]
    assert [words[1] for words in programs] == ["predict", "evaluate", "export"]
    for program, *words in programs:
        assert program == "fastnoise"
        assert main(words) == 0
    assert len(table("predictions.csv")) == 2
    names: dict[str, Any] = {}
    exec(compile(script, "use.md", "exec"), names)
    pixels = np.stack([np.asarray(picture(label, label)) for label in range(3)])
    assert names["probabilities"](pixels).shape == (3, 3)


# -- export --------------------------------------------------------------------------------------------------


def answers(file: Path, images: torch.Tensor) -> np.ndarray:
    """What an exported programme says of a batch, by the runtime of its format alone."""
    if file.suffix == ".pt2":
        found = torch.export.load(file).module()(images)
        assert isinstance(found, torch.Tensor), "a plain tensor"
        return found.numpy()
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"images": images.numpy()})
    return output


FORMATS = [".pt2", pytest.param(".onnx", marks=needs_onnx)]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("takes", ["normalised", "pixels"])
def test_two_networks_are_exported_as_one_programme(
    suffix: str, takes: str, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    single, logits = evaluated(made / "run")
    out = Path("out" + suffix)
    assert main(["export", "run", str(out), "--takes", takes]) == 0
    assert "2 networks as one programme; its answers to 6 test images" in " ".join(capsys.readouterr().out.split())
    predictor = fastnoise.load("run")
    pixels = torch.from_numpy(predictor.pixels(single.record.data.test))
    images = pixels if takes == "pixels" else predictor.normalised(pixels).contiguous()
    for size in (1, 5, 64):
        batch = torch.cat([images] * 11)[:size]
        expected = torch.cat([logits.softmax(1)] * 11)[:size].numpy()
        np.testing.assert_allclose(answers(out, batch), expected, rtol=0, atol=1e-5)
    header = described(out)
    assert header["class_names"] == list(CLASSES)
    assert header["images"] == takes
    assert header["image_size"] == [32, 32]
    assert not list(Path.cwd().glob("*.partial"))
    assert str(Path(fastnoise.__file__).parent).encode() not in out.read_bytes() or suffix == ".pt2"


def described(file: Path) -> dict[str, Any]:
    if file.suffix == ".pt2":
        extra = {HEADER: ""}
        torch.export.load(file, extra_files=extra)
        return dict(json.loads(extra[HEADER]))
    import onnx

    model = onnx.load(file)
    onnx.checker.check_model(model)
    return dict(json.loads(next(entry.value for entry in model.metadata_props if entry.key == HEADER)))


@pytest.mark.parametrize("method", OF_CLASSES)
@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=[needs_onnx, pytest.mark.slow])])
def test_programmes_of_every_method(method: str, suffix: str) -> None:
    words = ["--dataset", "digits", "--limit-train", "96", "--epochs", "2", "--batch-size", "32", "--width", "0.25"]
    assert main(["train", "--method", method, *words, *TWO_EPOCHS.get(method, ()), "--run-dir", "other"]) == 0
    assert main(["export", "other", f"out{suffix}"]) == 0
    single, logits = evaluated(Path("other"))
    predictor = fastnoise.load("other")
    images = predictor.normalised(torch.from_numpy(predictor.pixels(single.record.data.test)))
    found = answers(Path(f"out{suffix}"), images.contiguous())
    np.testing.assert_allclose(found, logits.softmax(1).numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("model", ["lenet5", "resnet18"])
def test_networks_with_layers_of_fastnoises_own_are_exported(model: str, suffix: str) -> None:
    words = ["--dataset", "digits", "--limit-train", "64", "--epochs", "1", "--width", "0.25", "--method", "ce"]
    if model == "lenet5":  # whose images must be larger: pooled by the C++ core on a CPU
        words[1], words[2:2] = "folder:photos", ["--noise", "none", "--loader", "torch"]
        words[words.index("--limit-train") + 1] = "18"
    assert main(["train", *words, "--model", model, "--run-dir", "other"]) == 0
    assert main(["export", "other", f"out{suffix}"]) == 0


def test_a_model_file_alone_is_compared_on_made_or_given_images(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy("run/model.safetensors", "alone.safetensors")
    shutil.rmtree("run")
    assert main(["export", "alone.safetensors", "out.pt2"]) == 0
    assert "64 made images (a model file alone has no data set; --images takes real ones)" in capsys.readouterr().out
    assert main(["export", "alone.safetensors", "out.pt2", "--images", "new"]) == 0
    assert "2 images of new" in capsys.readouterr().out


def test_code_that_only_a_run_names_is_not_run_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(
        "from fastnoise.data import load_dataset\nopen('was_run', 'w').close()\n\n\n"
        "def digits(root):\n    return load_dataset('digits', None)\n"
    )
    words = ["--dataset", "mine.py:digits", "--limit-train", "64", "--epochs", "1", "--width", "0.25", "--method", "ce"]
    assert main(["train", *words, "--noise", "none", "--run-dir", "other"]) == 0
    Path("was_run").unlink()
    assert main(["export", "other", "out.pt2"]) == 0
    assert "made images (the data set digits is none that fastnoise reads by itself" in capsys.readouterr().out
    assert not Path("was_run").exists()


@pytest.mark.parametrize(
    ("shift", "message"),
    [
        (0.01, "the programme's answers differ from the networks' by up to"),
        (np.nan, "the programme or the networks answer NaN or infinity for 1 images"),
    ],
)
def test_a_programme_that_answers_otherwise_is_not_written(
    shift: float, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = fastnoise.load("run")
    plain = Predictor.outputs

    def other(self: Predictor, images: torch.Tensor) -> Outputs:
        exported = torch.compiler.is_compiling() or type(images) is not torch.Tensor
        return Outputs(plain(self, images).logits * (1 + (shift if exported else 0.0)))

    monkeypatch.setattr(Predictor, "outputs", other)
    Path("out.pt2").write_bytes(b"before")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(TrainingError, match=message):
        export_program(predictor, Path("out.pt2"), pixels)
    assert Path("out.pt2").read_bytes() == b"before"


def test_networks_that_cannot_be_exported_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    untraceable = "if float(images.sum()) > 1e9:\n            raise ValueError\n        return self.layer"
    Path("own.py").write_text(OWN.replace("return self.layer", untraceable))
    words = [
        "--dataset",
        "digits",
        "--limit-train",
        "64",
        "--epochs",
        "1",
        "--method",
        "ce",
        "--model",
        "own.py:Linear",
    ]
    assert main(["train", *words, "--run-dir", "other"]) == 0
    for name in ("out.pt2", *["out.onnx"] * ONNX):
        line = refused(capsys, "export", "other", name, "--model", "own.py:Linear")
        assert f"{name}: the networks cannot be exported: Could not guard on data-dependent expression" in line
        assert not Path(name).exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run",), "give a run or a model file, and the file to write"),
        (("run", "out.pth"), "out.pth: programmes are .pt2 or .onnx files"),
        (("run", "gone/out.pt2"), "gone/out.pt2: no such folder"),
        (("run", "out.pt2", "--takes", "jpeg"), "jpeg"),
        (("run", "out.pt2", "--images", "none"), "none: no such file or folder"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "export", *words)


def test_onnx_without_its_packages_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'fastnoise[onnx]'" in refused(capsys, "export", "run", "out.onnx")


def test_lists_without_a_column_for_files_are_refused() -> None:
    Path("list.csv").write_text("photo,label\nnew/a.png,1\n")
    with pytest.raises(DataError, match="no column 'path' or 'file'"):
        given_files(["list.csv"])
