"""What Inductor would launch on an H100: the reading of its code, and pinned counts of whole steps."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastnoise.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import launches, record  # noqa: E402

sys.path.remove(str(ROOT))

WEIGHT = torch.empty(4, 3, 3, 3)
TABLE = (90, 7)
CODE = """
def triton_poi_fused__to_copy_0(): ...
def call(args):
    primals_1, primals_2, primals_3 = args
    args.clear()
    assert_size_stride(primals_1, (4, 3, 3, 3), (27, 1, 9, 3))
    assert_size_stride(primals_2, (2, 3, 8, 8), (192, 1, 24, 3))
    buf0 = empty_strided_cuda((4, 3, 3, 3), (27, 1, 9, 3), torch.bfloat16)
    triton_poi_fused__to_copy_0.run(primals_1, buf0, 108, stream=stream0)
    buf1 = extern_kernels.convolution(primals_2, buf0, stride=(1, 1), bias=None)
    buf2 = torch.ops.aten.convolution_backward.default(buf1)
    buf3 = empty_strided_cuda((2, 7), (7, 1), torch.bfloat16)
    extern_kernels.mm(buf2, buf1, out=buf3)
    buf4 = torch.ops.fastnoise.elr.default(buf3, primals_3)
    triton_per_fused_mean_1.run(buf3, buf4, 1, 2, stream=stream0)
    buf5 = reinterpret_tensor(buf0, (4, 3, 3, 3), (27, 1, 9, 3), 0); del buf0  # reuse
    triton_poi_fused__to_copy_convolution_2.run(buf2, buf5, 108, stream=stream0)
    return (buf4, )

def get_args(): triton_poi_fused_add_9.run(stream=stream0)
"""


def read(*lines: str) -> dict[str, str]:
    """The counts of CODE with lines more."""
    return launches.count(
        CODE.replace("    return", "".join(f"    {line}\n" for line in lines) + "    return"), [WEIGHT], TABLE
    )


def test_generated_code_is_read() -> None:
    assert read() == {
        "triton_launches": "3",
        "weight_casts": "2",
        "other_casts": "0",
        "only_add": "0",
        "format_changes": "0",
        "library_calls": "3",
        "fused_calls": "1",
        "own_launches": "1",
        "elementwise_mb": "0",
        "norm_mb": "0",
        "table_copies": "0",
        "operations": "0",
        "details": "1xconvolution 1xconvolution_backward 1xelr 1xmm",
    }


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("triton_poi_fused__to_copy_3.run(primals_2, buf7, 384, stream=stream0)", "other_casts"),
        ("triton_poi_fused_add_4.run(primals_3, primals_3, 1, stream=stream0)", "only_add"),
        ("triton_poi_fused_clone_5.run(buf1, buf6, 384, stream=stream0)", "format_changes"),
        ("buf6 = empty_strided_cuda((2, 4, 8, 8), (256, 64, 8, 1), torch.bfloat16)", "format_changes"),
        (
            "assert_size_stride(buf1, (2, 4, 8, 8), (256, 64, 8, 1), 'torch.ops.aten.convolution.default')",
            "format_changes",
        ),
        ("buf6 = empty_strided_cuda((90, 7), (7, 1), torch.float32)", "table_copies"),
        ("torch.ops.fastnoise.ema.default(buf3, primals_3)", "fused_calls"),
    ],
)
def test_what_a_step_should_not_do_is_found(line: str, column: str) -> None:
    before, after = read(), read(line)
    assert int(after[column]) == int(before[column]) + 1
    same = set(launches.COUNTS) - {column, "triton_launches", *(["own_launches"] if column == "fused_calls" else [])}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}


MAPS = "(128, 64, 32, 32), (65536, 1, 2048, 64)"
FORWARD = (
    "torch.ops.fastnoise.batch_norm.default(map1, primals_5, primals_6, primals_3, primals_4, {}, 0.1, 1e-05, True)"
)
BACKWARD = "torch.ops.fastnoise.batch_norm_backward.default(map2, {}, map1, {}, primals_5, primals_6, buf6, buf7, True)"


@pytest.mark.parametrize(
    ("call", "passes"),
    [
        (FORWARD.format("None"), 3),  # images twice, the result
        (FORWARD.format("map2"), 4),
        (BACKWARD.format("None", "None"), 5),  # images and gradient twice, the images' gradient
        (BACKWARD.format("map3", "None"), 7),
        (BACKWARD.format("None", "map3"), 7),  # gradient, images, result, residual's gradient; it, images, gradient
        (BACKWARD.format("map3", "map2"), 8),
    ],
)
@pytest.mark.parametrize(
    "known",
    [
        [f"assert_size_stride(map1, {MAPS}, 'torch.ops.aten.convolution.default')"],  # torch 2.11
        [f"assert_tensor_metadata(map1, {MAPS}, torch.bfloat16, 'torch.ops.aten.convolution.default')"],  # 2.14
        ["assert_size_stride_grouped((map1, b), ((128, 64, 32, 32), (64, )), ((65536, 1, 2048, 64), (1, )), 'input')"],
    ],
)
def test_what_batch_norms_ops_move_is_counted(call: str, passes: int, known: list[str]) -> None:
    found = read(*known, f"buf8 = {call}")
    assert found["own_launches"] == str(1 + 2)
    assert found["norm_mb"] == found["elementwise_mb"] == str(round(passes * 2 * 128 * 64 * 32 * 32 / 1e6))
    assert found["format_changes"] == "0"


def test_layouts_told_in_groups_are_read() -> None:
    line = (
        "assert_size_stride_grouped((a, b), ((2, 4, 8, 8), (2, 4, 8, 8)), ((256, 64, 8, 1), (256, 1, 32, 4)), 'input')"
    )
    assert read(line)["format_changes"] == "1"


def test_launches_in_another_form_are_not_passed_over() -> None:
    with pytest.raises(ValueError, match="another form"):
        read("kernels[3].run(buf1)")


@pytest.mark.parametrize("word", ["combo_kernel=True", "combo_kernels", "combo_kernels=Yes", "triton.nothing=1"])
def test_options_that_inductor_does_not_have_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=f"--set {word}: "):
        launches.configure([word])


def test_a_wrong_word_is_one_line() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.launches", "--models", "resnet1", "--methods", "elr"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2
    assert found.stderr.splitlines()[-1].startswith("unknown model 'resnet1'; did you mean")


PINNED = {
    # model, method: at most this many launches of Triton kernels forward and backward, for batches of 128.
    ("resnet18", "network"): (91, 100),
    ("resnet18", "elr"): (91, 99),
    ("resnet34", "network"): (161, 185),
    ("resnet34", "elr"): (161, 184),
}
FUSED = {
    # With --fused-norm: the same, without the two launches forward and backward for each batch norm.
    ("resnet18", "network"): (25, 24),
    ("resnet18", "elr"): (25, 23),
    ("resnet34", "network"): (41, 40),
    ("resnet34", "elr"): (41, 39),
}
CONVOLUTIONS = {"resnet18": 20, "resnet34": 36}


@pytest.mark.slow
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("model", CONVOLUTIONS)
def test_a_step_launches_no_more_than_it_did(model: str, fused: bool, tmp_path: Path) -> None:
    """In a process of its own, which takes the machine for one with an H100."""
    pytest.importorskip("triton", reason="needs triton")
    version = torch.__version__.rpartition(".")[0]
    if version not in launches.TRIED:
        pytest.skip(f"launches are pinned for torch {' and '.join(launches.TRIED)}, not {version}")
    output = tmp_path / "launches.csv"
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.launches", "--models", model, "--output", str(output)]
        + ["--fused-norm"] * fused,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    rows = {(row["method"], row["part"]): row for row in record.read(output)}
    layers = CONVOLUTIONS[model]
    for method in ("network", "elr"):
        forward, backward = (rows[method, part] for part in ("forward", "backward"))
        most = (FUSED if fused else PINNED)[model, method]
        assert int(forward["triton_launches"]) <= most[0]
        assert int(backward["triton_launches"]) <= most[1]
        assert int(forward["weight_casts"]) == layers + 2, "one for each convolution, two for the classifier"
        assert int(backward["weight_casts"]) == layers + 1
        assert int(forward["library_calls"]) == layers + 1
        assert int(backward["library_calls"]) == layers + 2
        for row in (forward, backward):
            assert {row[name] for name in ("other_casts", "only_add", "table_copies")} == {"0"}
        # The gradient of the last average is written out for batch norm's op.
        assert (forward["format_changes"], backward["format_changes"]) == ("0", str(int(fused)))
        assert int(forward["fused_calls"]) == layers * fused + (method != "network")
        assert int(forward["own_launches"]) == 2 * layers * fused + (method != "network")
        assert int(backward["fused_calls"]) == layers * fused
        assert int(backward["own_launches"]) == 2 * layers * fused
    assert rows["elr", "optimiser"]["details"] == "1x_fused_sgd_"
    assert rows["elr", "after_update"]["operations"] == "0"
    assert int(rows["elr", "statistics"]["operations"]) <= 5


@pytest.mark.parametrize("words", [["--batch-size", "0"], ["--classes", "1"]])
def test_sizes_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        launches.main(words)
    assert capsys.readouterr().err == "--batch-size must be 1 or more, and --classes 2 or more\n"
