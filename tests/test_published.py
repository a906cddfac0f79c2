"""The published accuracies, cell by cell against tables typed from the papers."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fastnoise.config import RunConfig
from fastnoise.errors import ConfigError
from fastnoise.noise.spec import parse
from fastnoise.recipes import recipe
from fastnoise.recipes.published import _index, _key, _kind, deviations, published
from fastnoise.sweeps import find_spec, resolve

PAPERS = {
    "Liu et al. 2020 (ELR), Table 1": (
        "symmetric:0.2 symmetric:0.4 symmetric:0.6 symmetric:0.8 "
        "asymmetric:0.1 asymmetric:0.2 asymmetric:0.3 asymmetric:0.4",
        """
    cifar10, ce, -, last: 86.98±.12 81.88±.29 74.14±.56 53.82±1.04 90.69±.17 88.59±.34 86.14±.40 80.11±1.44
    cifar10, bootstrap, -, last: 86.23±.23 82.23±.37 75.12±.56 54.12±1.32 90.32±.21 88.26±.24 86.57±.35 81.21±1.47
    cifar10, forward, -, last: 87.99±.36 83.25±.38 74.96±.65 54.64±.44 90.52±.26 89.09±.47 86.79±.36 83.55±.58
    cifar10, gce, -, last: 89.83±.20 87.13±.22 82.54±.23 64.07±1.38 90.91±.22 89.33±.17 85.45±.74 76.74±.61
    cifar10, sce, -, last: 89.83±.32 87.13±.26 82.81±.61 68.12±.81 91.72±.31 90.44±.27 88.48±.46 82.51±.45
    cifar10, elr, steps, validation: 91.16±.08 89.15±.17 86.12±.49 73.86±.61 93.27±.11 93.52±.23 91.89±.22 90.12±.47
    cifar10, elr, cosine, validation: 92.12±.35 91.43±.21 88.87±.24 80.69±.57 94.57±.23 93.28±.19 92.70±.41 90.35±.38
    cifar100, ce, -, last: 58.72±.26 48.20±.65 37.41±.94 18.10±.82 66.54±.42 59.20±.18 51.40±.16 42.74±.61
    cifar100, bootstrap, -, last: 58.27±.21 47.66±.55 34.68±1.1 21.64±.97 67.27±.78 62.14±.32 52.87±.19 45.12±.57
    cifar100, forward, -, last: 39.19±2.61 31.05±1.44 19.12±1.95 8.99±.58 45.96±1.21 42.46±2.16 38.13±2.97 34.44±1.93
    cifar100, gce, -, last: 66.81±.42 61.77±.24 53.16±.78 29.16±.74 68.36±.42 66.59±.22 61.45±.26 47.22±1.15
    cifar100, sce, -, last: 70.38±.13 62.27±.22 54.82±.57 25.91±.44 73.12±.22 72.56±.22 72.12±.24 69.32±.87
    cifar100, elr, steps, validation: 74.21±.22 68.28±.31 59.28±.67 29.78±.56 74.20±.31 74.03±.31 73.71±.22 73.26±.64
    cifar100, elr, cosine, validation: 74.68±.31 68.43±.42 60.05±.78 30.27±.86 74.52±.32 74.20±.25 74.02±.33 73.73±.34
        """,
    ),
    "Liu et al. 2020 (ELR), Table 2": (
        "symmetric:0.2 symmetric:0.5 symmetric:0.8 symmetric:0.9 asymmetric:0.4",
        """
    cifar10, ce, -, best: 86.8 79.4 62.9 42.7 83.2
    cifar10, mixup, -, best: 95.6 87.1 71.6 52.2 -
    cifar10, dividemix, -, best: 96.1 94.6 93.2 76.0 93.4
    cifar10, elr_plus, 2 mixup averaged, validation: 94.6 93.8 91.1 75.2 92.7
    cifar10, elr_plus, 2 mixup averaged, best: 95.8 94.8 93.3 78.7 93.0
    cifar100, ce, -, best: 62.0 46.7 19.9 10.1 -
    cifar100, mixup, -, best: 67.8 57.3 30.8 14.6 -
    cifar100, dividemix, -, best: 77.3 74.6 60.2 31.5 72.1
    cifar100, elr_plus, 2 mixup averaged, validation: 77.5 72.4 58.2 30.8 76.5
    cifar100, elr_plus, 2 mixup averaged, best: 77.6 73.6 60.8 33.4 77.5
        """,
    ),
    "Liu et al. 2020 (ELR), Table 3": (
        "none",
        """
    clothing1m, ce, -, last: 69.10
    clothing1m, forward, -, last: 69.84
    clothing1m, gce, -, last: 69.75
    clothing1m, sce, -, last: 71.02
    clothing1m, dividemix, -, last: 74.76
    clothing1m, elr, steps, validation: 72.87
    clothing1m, elr_plus, 2 mixup averaged, validation: 74.81
        """,
    ),
    "Liu et al. 2020 (ELR), Table 4": (
        "none",
        """
    mini_webvision, coteaching, -, last: 63.58
    mini_webvision, elr, -, last: 76.26
    mini_webvision, elr_plus, 2 mixup averaged, last: 77.78
    mini_webvision top 5, coteaching, -, last: 85.20
    mini_webvision top 5, elr, -, last: 91.26
    mini_webvision top 5, elr_plus, 2 mixup averaged, last: 91.68
    mini_webvision ILSVRC2012, coteaching, -, last: 61.48
    mini_webvision ILSVRC2012, elr, -, last: 68.71
    mini_webvision ILSVRC2012, elr_plus, 2 mixup averaged, last: 70.29
    mini_webvision ILSVRC2012 top 5, coteaching, -, last: 84.70
    mini_webvision ILSVRC2012 top 5, elr, -, last: 87.84
    mini_webvision ILSVRC2012 top 5, elr_plus, 2 mixup averaged, last: 89.76
        """,
    ),
    "Liu et al. 2020 (ELR), Table 5": (
        "symmetric:0.4 symmetric:0.8",
        """
    cifar10, elr_plus, 1 mixup averaged, validation: 93.04±.12 87.23±.30
    cifar10, elr_plus, 1 mixup raw, validation: 91.05±.13 81.43±.52
    cifar10, elr_plus, 1 plain averaged, validation: 92.09±.08 76.50±.65
    cifar10, elr_plus, 1 plain raw, validation: 90.83±.07 72.54±.35
    cifar10, elr_plus, 2 mixup averaged, validation: 93.68±.51 88.62±.26
    cifar10, elr_plus, 2 mixup raw, validation: 93.51±.47 84.75±.26
    cifar10, elr_plus, 2 plain averaged, validation: 92.95±.05 80.13±.51
    cifar10, elr_plus, 2 plain raw, validation: 91.86±.14 73.49±.47
        """,
    ),
    "Lu et al. 2022 (NAL), Table 1": (
        "symmetric:0.2 symmetric:0.4 symmetric:0.6 symmetric:0.8 asymmetric:0.4",
        """
    cifar10, selc, -, last: 93.09±.02 91.18±.06 87.25±.09 74.13±.14 91.05±.11
    cifar100, selc, -, last: 73.63±.07 68.46±.10 59.41±.06 32.63±.06 70.82±.09
    cifar10, nal, full, last: 94.37±.04 93.49±.07 90.56±.07 80.98±.27 92.09±.12
    cifar100, nal, full, last: 77.79±.28 74.65±.09 68.48±.16 36.77±.71 74.73±.12
        """,
    ),
    "Lu et al. 2022 (NAL), Table 2": (
        "pmd:0.35 pmd:0.35,type=2 pmd:0.35,type=3",
        """
    cifar10, ce, -, last: 78.11±.74 76.65±.57 76.89±.79
    cifar10, sce, -, last: 79.76±.72 77.92±.89 78.81±.29
    cifar10, plc, -, last: 82.80±.27 81.54±.47 81.50±.50
    cifar10, selc, -, last: 86.97±.15 87.06±.20 87.31±.18
    cifar10, nal, full, last: 88.81±.13 87.66±.23 88.57±.16
    cifar100, ce, -, last: 57.68±.29 57.83±.25 56.07±.79
    cifar100, sce, -, last: 55.20±.33 56.10±.73 56.04±.74
    cifar100, plc, -, last: 60.01±.43 63.68±.29 63.68±.29
    cifar100, selc, -, last: 65.72±.17 66.79±.18 66.41±.17
    cifar100, nal, full, last: 66.55±.16 67.15±.11 66.59±.40
        """,
    ),
    "Lu et al. 2022 (NAL), Table 3": (
        "none",
        """
    animal10n, ce, -, last: 79.40±.14
    animal10n, plc, -, last: 83.40±.43
    animal10n, selc, -, last: 83.73±.06
    animal10n, nal, full, last: 84.18±.19
        """,
    ),
    "Lu et al. 2022 (NAL), Table 4": (
        "none",
        """
    clothing1m, ce, -, last: 69.21
    clothing1m, sce, -, last: 71.02
    clothing1m, elr, -, last: 72.87
    clothing1m, nal, reverse, last: 73.58
        """,
    ),
    "Lu et al. 2022 (NAL), Table 5": (
        "none",
        """
    mini_webvision, coteaching, -, last: 63.58
    mini_webvision, elr, -, last: 76.26
    mini_webvision, nal, reverse, last: 77.41
    mini_webvision top 5, coteaching, -, last: 85.20
    mini_webvision top 5, elr, -, last: 91.26
    mini_webvision top 5, nal, reverse, last: 92.25
    mini_webvision ILSVRC2012, coteaching, -, last: 61.48
    mini_webvision ILSVRC2012, elr, -, last: 68.71
    mini_webvision ILSVRC2012, nal, reverse, last: 74.09
    mini_webvision ILSVRC2012 top 5, coteaching, -, last: 84.70
    mini_webvision ILSVRC2012 top 5, elr, -, last: 87.84
    mini_webvision ILSVRC2012 top 5, nal, reverse, last: 92.09
        """,
    ),
    "Lu et al. 2022 (NAL), Table 6": (
        "symmetric:0.4 symmetric:0.8 asymmetric:0.4",
        """
    cifar10, nal, no targets, last: 89.47±.50 76.91±.22 88.23±.22
    cifar100, nal, no targets, last: 69.91±.21 31.33±.38 55.68±.17
    cifar10, nal, no branch, last: 90.94±.28 - 91.55±.07
    cifar10, nal, reverse, last: 92.92±.29 80.20±.42 88.17±.63
    cifar100, nal, reverse, last: 75.38±.08 38.24±.55 74.89±.20
        """,
    ),
    "Gupta (SWCE), Table II": (
        "idn:0.2 idn:0.3 idn:0.5",
        """
    cifar10, ce, -, last: 75.81 69.15 39.42
    cifar100, ce, -, last: 30.42 24.15 14.42
    cifar10, mixup, -, last: 73.17 72.02 48.95
    cifar100, mixup, -, last: 32.92 29.76 21.31
    cifar10, forward, -, last: 74.64 69.75 46.27
    cifar100, forward, -, last: 36.38 33.17 19.27
    cifar10, coteaching, -, last: 80.96 78.56 45.92
    cifar100, coteaching, -, last: 37.96 33.43 23.97
    cifar10, dividemix, -, last: 91.94 93.48 80.17
    cifar100, dividemix, -, last: 70.67 75.89 57.56
    cifar10, swce, -, last: 94.40 93.60 82.11
    cifar100, swce, -, last: 76.61 73.11 61.33
        """,
    ),
    "Gupta (SWCE), Table III": (
        "idn:0.2 idn:0.3 idn:0.5",
        """
    cifar100, dividemix, -, last: 78.75 78.79 58.41
    cifar100, swce, -, last: 79.49 78.52 59.86
        """,
    ),
    "Gupta (SWCE), Table IV": (
        "idn:0.2 idn:0.3",
        """
    chest_xray, ce, -, last: 67.58 64.82
    chaoyang, ce, -, last: 53.12 46.88
    chest_xray, dividemix, -, last: 73.24 73.88
    chaoyang, dividemix, -, last: 34.46 20.91
    chest_xray, swce, nce+mae, last: 75.03 69.00
    chaoyang, swce, nce+mae, last: 42.40 43.85
        """,
    ),
    "Gupta (SWCE), Table V": (
        "idn:0.2 idn:0.3",
        """
    chest_xray, focal, -, last: 80.68 70.45
    chaoyang, focal, -, last: 21.63 21.49
    chest_xray, swce, focal, last: 75.18 73.49
    chaoyang, swce, focal, last: 31.78 24.00
        """,
    ),
    "Han et al. 2018 (co-teaching), authors' code": (
        "pair:0.45 symmetric:0.5 symmetric:0.2",
        """
    mnist, coteaching, -, mean_last_10: 87.58 91.68 97.71
    cifar10, coteaching, -, mean_last_10: 72.85 74.49 82.18
    cifar100, coteaching, -, mean_last_10: 34.40 41.23 54.36
        """,
    ),
    "Wei et al. 2020 (JoCoR), as Xiao et al. 2023 (ProMix) quote it": (
        "symmetric:0.2 symmetric:0.5 symmetric:0.8 asymmetric:0.4",
        """
    cifar10, jocor, -, mean_last_10: 85.7 79.4 27.8 76.4
    cifar100, jocor, -, mean_last_10: 53.0 43.5 15.5 -
        """,
    ),
    "Englesson and Azizpour 2021 (GJS), as later papers quote it": (
        "symmetric:0.2 symmetric:0.4",
        """
    cifar10, gjs, -, last: 95.33 -
    cifar100, gjs, -, last: - 75.71
        """,
    ),
    "Feng et al. 2022 (SSR), authors' code": (
        "symmetric:0.2 symmetric:0.5 symmetric:0.8 symmetric:0.9 asymmetric:0.4",
        """
    cifar10, ssr, -, last: 96.3 95.7 95.2 94.6 95.1
    cifar10, ssr_plus, -, last: 96.7 96.1 95.6 95.2 95.5
    cifar100, ssr, -, last: 79.0 75.9 69.5 61.8 -
    cifar100, ssr_plus, -, last: 79.7 77.2 71.9 66.6 -
        """,
    ),
    "Liu et al. 2022 (SOP), as Xiao et al. 2023 (ProMix) quote it": (
        "symmetric:0.2 symmetric:0.5 symmetric:0.8 asymmetric:0.4",
        """
    cifar10, sop_plus, -, last: 96.3 95.5 94.0 93.8
    cifar100, sop_plus, -, last: 78.8 75.9 63.3 -
        """,
    ),
    "Nishi et al. 2021 (AugDesc), best epoch": (
        "symmetric:0.2 symmetric:0.5 symmetric:0.8 symmetric:0.9 asymmetric:0.4",
        """
    cifar10, augdesc, weak, best: 96.33 95.36 93.77 91.88 94.64
    cifar10, augdesc, strong, best: 96.35 95.64 93.72 35.33 94.39
    cifar100, augdesc, weak, best: 79.50 77.24 66.36 41.20 -
    cifar100, augdesc, strong, best: 79.61 77.64 61.83 17.57 -
        """,
    ),
    "Nishi et al. 2021 (AugDesc), last ten epochs": (
        "symmetric:0.2 symmetric:0.5 symmetric:0.8 symmetric:0.9 asymmetric:0.4",
        """
    cifar10, augdesc, weak, mean_last_10: 96.17 95.13 93.64 91.76 94.26
    cifar100, augdesc, weak, mean_last_10: 79.22 77.01 66.05 40.90 -
        """,
    ),
    "Nishi et al. 2021 (AugDesc), Clothing1M": (
        "none",
        """
    clothing1m, augdesc, weak, last: 74.72
    clothing1m, augdesc, strong, last: 75.11
        """,
    ),
    "Xiao et al. 2023 (ProMix), authors' code, best epoch": (
        "symmetric:0.2 symmetric:0.5 symmetric:0.8 symmetric:0.9 asymmetric:0.4",
        """
    cifar10, promix, -, best: 97.69 97.40 95.49 93.36 96.59
    cifar100, promix, -, best: 82.64 80.06 69.37 42.93 -
        """,
    ),
    "Xiao et al. 2023 (ProMix), authors' code, last epoch": (
        "symmetric:0.2 symmetric:0.5 symmetric:0.8 symmetric:0.9 asymmetric:0.4",
        """
    cifar10, promix, -, last: 97.59 97.30 95.05 91.13 96.51
    cifar100, promix, -, last: 82.39 79.72 68.95 42.74 -
        """,
    ),
    "Bai et al. 2021 (PES), as Xiao et al. 2023 (ProMix) quote it": (
        "symmetric:0.2 symmetric:0.5 symmetric:0.8",
        """
    cifar10, pes_semi, -, best: 95.9 95.1 93.1
    cifar100, pes_semi, -, best: 77.4 74.3 61.6
        """,
    ),
    "Wei et al. 2022 (CIFAR-N), leaderboard": (
        "human:aggre human:random1 human:random2 human:random3 human:worse human:noisy",
        """
    cifar10n, jocor, -, last: 91.44±.05 90.30±.20 90.21±.19 90.11±.21 83.37±.30 -
    cifar10n, pes_semi, -, last: 94.66±.18 95.06±.15 95.19±.23 95.22±.13 92.68±.22 -
    cifar100n, pes_semi, -, last: - - - - - 70.36±.33
    cifar10n, promix, -, last: 97.65±.19 97.39±.16 97.55±.12 97.52±.09 96.34±.23 -
    cifar100n, promix, -, last: - - - - - 73.79±.28
    cifar10n, sop_plus, -, last: 95.61±.13 95.28±.13 95.31±.10 95.39±.11 93.24±.21 -
    cifar100n, jocor, -, last: - - - - - 59.97±.24
    cifar10n, volminnet, -, last: 89.70±.21 88.30±.12 88.27±.09 88.19±.41 80.53±.20 -
    cifar100n, sop_plus, -, last: - - - - - 67.81±.23
    cifar100n, volminnet, -, last: - - - - - 57.80±.31
        """,
    ),
}
"""Source -> the noises of its columns, and its rows: data set (and test set, and top 5 if it isn't top 1), method, kind
of the method (- if the source has one kind), how the accuracy is measured: accuracies, - where the paper has none.

Left out are methods that fastnoise has not, and the rows of NAL's Table 1 that it takes from other papers.
"""

Cell = tuple[object, ...]


def typed() -> dict[tuple[str, Cell], str]:
    cells = {}
    for source, (noises, rows) in PAPERS.items():
        for line in rows.strip().splitlines():
            words, values = line.strip().split(": ")
            where, method, kind, metric = words.split(", ")
            where, _, top = where.partition(" top ")
            dataset, _, test_set = where.partition(" ")
            for noise, value in zip(noises.split(), values.split(), strict=True):
                if value != "-":
                    cell = (dataset, test_set, top or "1", method, kind, metric, *_key(parse(noise)))
                    cells[source, cell] = value
    return cells


def stored() -> dict[tuple[str, Cell], str]:
    cells: dict[tuple[str, Cell], str] = {}
    for (dataset, method, *noise), entries in _index().items():
        for kind, entry in entries:
            cell = (dataset, entry.test_set, str(entry.top), method, kind or "-", entry.metric, *noise)
            assert (entry.source, cell) not in cells
            cells[entry.source, cell] = entry.describe()
    return cells


def test_every_cell_is_the_paper_s() -> None:
    """No cell is missing, none is wrong, and none stands under another column, kind or metric."""
    papers = {key: tuple(map(float, value.split("±"))) for key, value in typed().items()}
    ours = {key: tuple(map(float, value.split(" ± "))) for key, value in stored().items() if key[0] in PAPERS}
    assert ours == papers
    assert len(papers) > 280
    assert {source for source, _ in stored()} - set(PAPERS) == {"noisy-labels (reproduction for ReScience, 2026)"}


def test_a_run_has_a_value_of_each_metric() -> None:
    """ELR+ is published at the best validation epoch and at the best test epoch."""
    config = recipe("elr_plus", "cifar100", "symmetric:0.8,true_class=included")
    assert {metric: entry.mean for metric, entry in published(config).items()} == {"validation": 58.2, "best": 60.8}


def test_other_test_sets_and_top_5_are_not_a_run_s_accuracy() -> None:
    """A run on mini-WebVision is set beside the top-1 accuracy on WebVision's own validation set."""
    config = recipe("elr", "cifar100", "none").replace({"model": "resnet50"})
    found = published(replace(config, data=replace(config.data, dataset="clothing1m")))
    assert {metric: entry.mean for metric, entry in found.items()} == {"last": 72.87, "validation": 72.87}
    every = [entry for entries in _index().values() for _, entry in entries]
    assert sum(bool(entry.test_set) for entry in every) == 12
    assert sum(entry.top == 5 for entry in every) == 12


def test_the_pipeline_s_selection_loss_is_its_kind() -> None:
    config = recipe("swce", "cifar10", "idn:0.2").replace({"selection_loss": "focal"})
    found = published(replace(config, data=replace(config.data, dataset="chaoyang")))
    assert found["last"].mean == 31.78
    assert "F1" in found["last"].cite()


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        ("asymmetric:0.4", ""),
        ("asymmetric:0.4,map=block5", ""),
        ("asymmetric:0.4,map=superclass", "the class map superclass, there block5"),
        ("idn:0.2", ""),
        ("idn:0.2,variant=shared", "noise with variant=shared,inputs=raw"),
        ("idn:0.2,inputs=normalised", "noise with variant=xia,inputs=normalised"),
    ],
)
def test_what_flips_labels_otherwise_than_the_source_is_said(noise: str, said: str) -> None:
    config = recipe("swce" if noise.startswith("idn") else "elr", "cifar100", noise)
    found = list(published(config).values())
    assert found
    usual = recipe(config.method.method, "cifar100", noise.partition(",")[0])
    for entry in found:
        plain = deviations(usual, entry, 0.4)
        if said:
            assert said in deviations(config, entry, 0.4)
            assert said not in plain
        else:
            assert deviations(config, entry, 0.4) == plain


@pytest.mark.parametrize(
    ("name", "seeds", "source"),
    [
        ("elr-table-5", 5, "Liu et al. 2020 (ELR), Table 5"),
        ("nal-table-6", 3, "Lu et al. 2022 (NAL), Table 6"),
    ],
)
def test_a_sweep_repeats_every_cell_of_an_ablation(name: str, seeds: int, source: str) -> None:
    """Each cell of the table has its jobs, and each job its cell, but those that do not converge in the paper, and the
    whole method, whose cells stand in NAL's Table 1."""
    elr = name == "elr-table-5"
    cells: dict[str, int] = {}
    others = set()
    for job in resolve(find_spec(name)):
        assert isinstance(job.config, RunConfig)
        said = [f"{entry.source}: {entry.describe()}; {entry.remark}" for entry in published(job.config).values()]
        value = next((re.search(rf"{re.escape(source)}: ([^;]+)", text) for text in said if source in text), None)
        if value is None:
            others.add(f"{job.config.data.dataset} {_kind(job.config)}")
        else:
            cells[value[1]] = cells.get(value[1], 0) + 1
    _, rows = PAPERS[source]
    listed = [value for line in rows.strip().splitlines() for value in line.split(": ")[1].split() if value != "-"]
    assert cells == {value.replace("±.", " ± 0."): seeds for value in listed}
    whole = {f"{dataset} {kind}" for dataset in ("cifar10", "cifar100") for kind in ("full", "no branch")}
    assert others == (set() if elr else whole)


def test_a_name_is_a_table_only_if_no_file_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_spec("nal-table-6").is_absolute()
    Path("nal-table-6").touch()
    assert find_spec("nal-table-6") == Path("nal-table-6")
    with pytest.raises(ConfigError, match=r"no-table: no such file; .*: elr-table-5, nal-table-6$"):
        resolve(find_spec("no-table"))
