"""Tables of published accuracies, as their papers print them."""

from .published_table import Metric, Table
from .published_tables_real import REAL_TABLES


def _drawn_from_all(rates: str) -> str:
    """Symmetric noise as most authors' loaders make it: a share of all samples gets a label drawn from all classes."""
    return " ".join(f"symmetric:{rate},true_class=included,quota=global" for rate in rates.split())


_DRAWN_FROM_ALL, _DRAWN_FROM_ALL_OF_FOUR = _drawn_from_all("0.2 0.4 0.6 0.8"), _drawn_from_all("0.2 0.5 0.8 0.9")
_NAL_NOISE = "the text says that labels turn into other classes, the authors' code draws them from all classes"

_AUGDESC: tuple[tuple[str, Metric, dict[tuple[str, ...], str]], ...] = (
    (
        "best epoch",
        "best",
        {
            ("cifar10", "augdesc", "weak"): "96.33 95.36 93.77 91.88 94.64",
            ("cifar10", "augdesc", "strong"): "96.35 95.64 93.72 35.33 94.39",
            ("cifar100", "augdesc", "weak"): "79.50 77.24 66.36 41.20 -",
            ("cifar100", "augdesc", "strong"): "79.61 77.64 61.83 17.57 -",
        },
    ),
    (
        "last ten epochs",
        "mean_last_10",
        {
            ("cifar10", "augdesc", "weak"): "96.17 95.13 93.64 91.76 94.26",
            ("cifar100", "augdesc", "weak"): "79.22 77.01 66.05 40.90 -",
        },
    ),
)

_PROMIX: tuple[tuple[Metric, str, str], ...] = (
    ("best", "97.69 97.40 95.49 93.36 96.59", "82.64 80.06 69.37 42.93 -"),
    ("last", "97.59 97.30 95.05 91.13 96.51", "82.39 79.72 68.95 42.74 -"),
)

TABLES = (
    Table(
        "Liu et al. 2020 (ELR), Table 1",
        "validation",
        "ResNet-34",
        "resnet34",
        f"{_DRAWN_FROM_ALL} asymmetric:0.1 asymmetric:0.2 asymmetric:0.3 asymmetric:0.4",
        {
            ("cifar10", "elr", "steps"): "91.16±.08 89.15±.17 86.12±.49 73.86±.61 93.27±.11 93.52±.23 91.89±.22 "
            "90.12±.47",
            ("cifar10", "elr", "cosine"): "92.12±.35 91.43±.21 88.87±.24 80.69±.57 94.57±.23 93.28±.19 92.70±.41 "
            "90.35±.38",
            ("cifar100", "elr", "steps"): "74.21±.22 68.28±.31 59.28±.67 29.78±.56 74.20±.31 74.03±.31 73.71±.22 "
            "73.26±.64",
            ("cifar100", "elr", "cosine"): "74.68±.31 68.43±.42 60.05±.78 30.27±.86 74.52±.32 74.20±.25 74.02±.33 "
            "73.73±.34",
        },
        {("cifar10", "elr"): 120, ("cifar100", "elr"): 150},
        "mean of 5 draws of the noise",
        sequential=True,
    ),
    Table(
        "Liu et al. 2020 (ELR), Table 1",
        "last",
        "ResNet-34",
        "resnet34",
        "symmetric:0.2 symmetric:0.4 symmetric:0.6 symmetric:0.8 asymmetric:0.1 asymmetric:0.2 asymmetric:0.3 "
        "asymmetric:0.4",
        {
            ("cifar10", "ce"): "86.98±.12 81.88±.29 74.14±.56 53.82±1.04 90.69±.17 88.59±.34 86.14±.40 80.11±1.44",
            ("cifar10", "bootstrap"): "86.23±.23 82.23±.37 75.12±.56 54.12±1.32 90.32±.21 88.26±.24 86.57±.35 "
            "81.21±1.47",
            ("cifar10", "forward"): "87.99±.36 83.25±.38 74.96±.65 54.64±.44 90.52±.26 89.09±.47 86.79±.36 83.55±.58",
            ("cifar10", "gce"): "89.83±.20 87.13±.22 82.54±.23 64.07±1.38 90.91±.22 89.33±.17 85.45±.74 76.74±.61",
            ("cifar10", "sce"): "89.83±.32 87.13±.26 82.81±.61 68.12±.81 91.72±.31 90.44±.27 88.48±.46 82.51±.45",
            ("cifar100", "ce"): "58.72±.26 48.20±.65 37.41±.94 18.10±.82 66.54±.42 59.20±.18 51.40±.16 42.74±.61",
            ("cifar100", "bootstrap"): "58.27±.21 47.66±.55 34.68±1.1 21.64±.97 67.27±.78 62.14±.32 52.87±.19 "
            "45.12±.57",
            ("cifar100", "forward"): "39.19±2.61 31.05±1.44 19.12±1.95 8.99±.58 45.96±1.21 42.46±2.16 38.13±2.97 "
            "34.44±1.93",
            ("cifar100", "gce"): "66.81±.42 61.77±.24 53.16±.78 29.16±.74 68.36±.42 66.59±.22 61.45±.26 47.22±1.15",
            ("cifar100", "sce"): "70.38±.13 62.27±.22 54.82±.57 25.91±.44 73.12±.22 72.56±.22 72.12±.24 69.32±.87",
        },
        {},
        "taken there from earlier papers, epoch not stated",
    ),
    Table(
        "Lu et al. 2022 (NAL), Table 1",
        "last",
        "ResNet-34",
        "resnet34",
        f"{_DRAWN_FROM_ALL} asymmetric:0.4",
        {
            ("cifar10", "nal", "full"): "94.37±.04 93.49±.07 90.56±.07 80.98±.27 92.09±.12",
            ("cifar100", "nal", "full"): "77.79±.28 74.65±.09 68.48±.16 36.77±.71 74.73±.12",
            ("cifar10", "selc"): "93.09±.02 91.18±.06 87.25±.09 74.13±.14 91.05±.11",
            ("cifar100", "selc"): "73.63±.07 68.46±.10 59.41±.06 32.63±.06 70.82±.09",
        },
        {("cifar10", "nal"): 500, ("cifar100", "nal"): 500, ("cifar10", "selc"): 200, ("cifar100", "selc"): 200},
        f"mean of 3 trials, epoch not stated; {_NAL_NOISE}",
    ),
    Table(
        "Lu et al. 2022 (NAL), Table 6",
        "last",
        "ResNet-34",
        "resnet34",
        _drawn_from_all("0.4 0.8") + " asymmetric:0.4",
        {
            ("cifar10", "nal", "no targets"): "89.47±.50 76.91±.22 88.23±.22",
            ("cifar100", "nal", "no targets"): "69.91±.21 31.33±.38 55.68±.17",
            ("cifar10", "nal", "no branch"): "90.94±.28 - 91.55±.07",
            ("cifar10", "nal", "reverse"): "92.92±.29 80.20±.42 88.17±.63",
            ("cifar100", "nal", "reverse"): "75.38±.08 38.24±.55 74.89±.20",
        },
        {("cifar10", "nal"): 500, ("cifar100", "nal"): 500},
        f"mean of 3 trials, epoch not stated; {_NAL_NOISE}",
    ),
    Table(
        "Lu et al. 2022 (NAL), Table 2",
        "last",
        "PreActResNet-34, in PLC's code a plain ResNet-34",
        "resnet34",
        "pmd:0.35 pmd:0.35,type=2 pmd:0.35,type=3",
        {
            ("cifar10", "ce"): "78.11±.74 76.65±.57 76.89±.79",
            ("cifar10", "sce"): "79.76±.72 77.92±.89 78.81±.29",
            ("cifar10", "plc"): "82.80±.27 81.54±.47 81.50±.50",
            ("cifar100", "ce"): "57.68±.29 57.83±.25 56.07±.79",
            ("cifar100", "sce"): "55.20±.33 56.10±.73 56.04±.74",
            ("cifar100", "plc"): "60.01±.43 63.68±.29 63.68±.29",
        },
        {("cifar10", "plc"): 180, ("cifar100", "plc"): 180},
        "epoch not stated; PLC's equal values of types II and III stand so in the paper",
    ),
    Table(
        "Lu et al. 2022 (NAL), Table 2",
        "last",
        "PreActResNet-34, in the authors' code of 18 layers",
        "preact_resnet18_bn_stem",
        "pmd:0.35 pmd:0.35,type=2 pmd:0.35,type=3",
        {
            ("cifar10", "selc"): "86.97±.15 87.06±.20 87.31±.18",
            ("cifar10", "nal", "full"): "88.81±.13 87.66±.23 88.57±.16",
            ("cifar100", "selc"): "65.72±.17 66.79±.18 66.41±.17",
            ("cifar100", "nal", "full"): "66.55±.16 67.15±.11 66.59±.40",
        },
        {("cifar10", "selc"): 150, ("cifar100", "selc"): 150},
        "epoch not stated",
    ),
    Table(
        "Liu et al. 2020 (ELR), Table 2",
        "validation",
        "PreAct ResNet-18",
        "preact_resnet18_bn_stem",
        f"{_DRAWN_FROM_ALL_OF_FOUR} asymmetric:0.4",
        {
            ("cifar10", "elr_plus", "2 mixup averaged"): "94.6 93.8 91.1 75.2 92.7",
            ("cifar100", "elr_plus", "2 mixup averaged"): "77.5 72.4 58.2 30.8 76.5",
        },
        {("cifar10", "elr_plus"): 200, ("cifar100", "elr_plus"): 250},
        sequential=True,
    ),
    Table(
        "Liu et al. 2020 (ELR), Table 2",
        "best",
        "PreAct ResNet-18",
        "preact_resnet18_bn_stem",
        f"{_DRAWN_FROM_ALL_OF_FOUR} asymmetric:0.4",
        {
            ("cifar10", "ce"): "86.8 79.4 62.9 42.7 83.2",
            ("cifar100", "ce"): "62.0 46.7 19.9 10.1 -",
            ("cifar10", "mixup"): "95.6 87.1 71.6 52.2 -",
            ("cifar10", "dividemix"): "96.1 94.6 93.2 76.0 93.4",
            ("cifar10", "elr_plus", "2 mixup averaged"): "95.8 94.8 93.3 78.7 93.0",
            ("cifar100", "elr_plus", "2 mixup averaged"): "77.6 73.6 60.8 33.4 77.5",
            ("cifar100", "mixup"): "67.8 57.3 30.8 14.6 -",
            ("cifar100", "dividemix"): "77.3 74.6 60.2 31.5 72.1",
        },
        {
            ("cifar10", "dividemix"): 300,
            ("cifar100", "dividemix"): 300,
            ("cifar10", "elr_plus"): 200,
            ("cifar100", "elr_plus"): 250,
        },
        "the best test accuracy during training",
    ),
    Table(
        "Liu et al. 2020 (ELR), Table 5",
        "validation",
        "PreAct ResNet-18",
        "preact_resnet18_bn_stem",
        _drawn_from_all("0.4 0.8"),
        {
            ("cifar10", "elr_plus", "1 mixup averaged"): "93.04±.12 87.23±.30",
            ("cifar10", "elr_plus", "1 mixup raw"): "91.05±.13 81.43±.52",
            ("cifar10", "elr_plus", "1 plain averaged"): "92.09±.08 76.50±.65",
            ("cifar10", "elr_plus", "1 plain raw"): "90.83±.07 72.54±.35",
            ("cifar10", "elr_plus", "2 mixup averaged"): "93.68±.51 88.62±.26",
            ("cifar10", "elr_plus", "2 mixup raw"): "93.51±.47 84.75±.26",
            ("cifar10", "elr_plus", "2 plain averaged"): "92.95±.05 80.13±.51",
            ("cifar10", "elr_plus", "2 plain raw"): "91.86±.14 73.49±.47",
        },
        {("cifar10", "elr_plus"): 200},
        "mean of 5 draws of the noise",
    ),
    Table(
        "Han et al. 2018 (co-teaching), authors' code",
        "mean_last_10",
        "nine-layer CNN",
        "cnn9_dropout2d_always",
        "pair:0.45 symmetric:0.5 symmetric:0.2",
        {
            ("mnist", "coteaching"): "87.58 91.68 97.71",
            ("cifar10", "coteaching"): "72.85 74.49 82.18",
            ("cifar100", "coteaching"): "34.40 41.23 54.36",
        },
        {("mnist", "coteaching"): 199, ("cifar10", "coteaching"): 199, ("cifar100", "coteaching"): 199},
    ),
    Table(
        "Wei et al. 2020 (JoCoR), as Xiao et al. 2023 (ProMix) quote it",
        "mean_last_10",
        "seven-layer CNN",
        "cnn7",
        "symmetric:0.2 symmetric:0.5 symmetric:0.8 asymmetric:0.4",
        {("cifar10", "jocor"): "85.7 79.4 27.8 76.4", ("cifar100", "jocor"): "53.0 43.5 15.5 -"},
        {("cifar10", "jocor"): 199, ("cifar100", "jocor"): 199},
        "the mean of both networks",
    ),
    Table(
        "Englesson and Azizpour 2021 (GJS), as later papers quote it",
        "last",
        "pre-activation ResNet-34, of three narrow stages in the authors' code",
        "resnet34",
        _drawn_from_all("0.2 0.4"),
        {("cifar10", "gjs"): "95.33 -", ("cifar100", "gjs"): "- 75.71"},
        {("cifar10", "gjs"): 400, ("cifar100", "gjs"): 400},
        "epoch not stated",
    ),
    Table(
        "Feng et al. 2022 (SSR), authors' code",
        "last",
        "PreAct ResNet-18",
        "preact_resnet18_bn_stem",
        f"{_DRAWN_FROM_ALL_OF_FOUR} asymmetric:0.4",
        {
            ("cifar10", "ssr"): "96.3 95.7 95.2 94.6 95.1",
            ("cifar10", "ssr_plus"): "96.7 96.1 95.6 95.2 95.5",
            ("cifar100", "ssr"): "79.0 75.9 69.5 61.8 -",
            ("cifar100", "ssr_plus"): "79.7 77.2 71.9 66.6 -",
        },
        {(dataset, method): 300 for dataset in ("cifar10", "cifar100") for method in ("ssr", "ssr_plus")},
        "epoch not stated",
    ),
    Table(
        "Liu et al. 2022 (SOP), as Xiao et al. 2023 (ProMix) quote it",
        "last",
        "PreAct ResNet-18",
        "preact_resnet18_bn_stem",
        f"{_drawn_from_all('0.2 0.5 0.8')} asymmetric:0.4",
        {("cifar10", "sop_plus"): "96.3 95.5 94.0 93.8", ("cifar100", "sop_plus"): "78.8 75.9 63.3 -"},
        {("cifar10", "sop_plus"): 300, ("cifar100", "sop_plus"): 300},
        "epoch not stated",
        sequential=True,
    ),
    *(
        Table(
            f"Xiao et al. 2023 (ProMix), authors' code, {metric} epoch",
            metric,
            "ResNet-18",
            "resnet18",
            f"{_DRAWN_FROM_ALL_OF_FOUR} asymmetric:0.4",
            {("cifar10", "promix"): ten, ("cifar100", "promix"): hundred},
            {("cifar10", "promix"): 601, ("cifar100", "promix"): 601},
        )
        for metric, ten, hundred in _PROMIX
    ),
    Table(
        "Bai et al. 2021 (PES), as Xiao et al. 2023 (ProMix) quote it",
        "best",
        "PreAct ResNet-18",
        "preact_resnet18_bn_stem",
        _drawn_from_all("0.2 0.5 0.8"),
        {("cifar10", "pes_semi"): "95.9 95.1 93.1", ("cifar100", "pes_semi"): "77.4 74.3 61.6"},
    ),
    Table(
        "Wei et al. 2022 (CIFAR-N), leaderboard",
        "last",
        "network not stated",
        None,
        "human:aggre human:random1 human:random2 human:random3 human:worse human:noisy",
        {
            ("cifar10n", "jocor"): "91.44±.05 90.30±.20 90.21±.19 90.11±.21 83.37±.30 -",
            ("cifar10n", "pes_semi"): "94.66±.18 95.06±.15 95.19±.23 95.22±.13 92.68±.22 -",
            ("cifar10n", "promix"): "97.65±.19 97.39±.16 97.55±.12 97.52±.09 96.34±.23 -",
            ("cifar10n", "sop_plus"): "95.61±.13 95.28±.13 95.31±.10 95.39±.11 93.24±.21 -",
            ("cifar10n", "volminnet"): "89.70±.21 88.30±.12 88.27±.09 88.19±.41 80.53±.20 -",
            ("cifar100n", "jocor"): "- - - - - 59.97±.24",
            ("cifar100n", "pes_semi"): "- - - - - 70.36±.33",
            ("cifar100n", "promix"): "- - - - - 73.79±.28",
            ("cifar100n", "sop_plus"): "- - - - - 67.81±.23",
            ("cifar100n", "volminnet"): "- - - - - 57.80±.31",
        },
        {},
        "epoch not stated",
    ),
    Table(
        "noisy-labels (reproduction for ReScience, 2026)",
        "last",
        "network by method",
        None,
        "none human:aggre human:random1 human:worse human:noisy",
        {
            ("cifar10n", "ce"): "94.21±.12 91.70±.07 90.20±.04 83.91±.08 -",
            ("cifar10n", "coteaching"): "92.15 91.93 90.69 80.92 -",
            ("cifar10n", "elr"): "93.97±.12 93.00±.19 92.20±.10 87.89±.14 -",
            ("cifar10n", "elr_plus", "2 mixup averaged"): "95.81 95.32 94.89 91.75±.06 -",
            ("cifar10n", "sop"): "- 91.69±.76 89.83±.24 83.66±.64 -",
            ("cifar10n", "sop_plus"): "- 96.04±.15 95.70±.07 92.89±.09 -",
            ("cifar10n", "dividemix"): "95.51 95.62 95.72 93.10±.10 -",
            ("cifar10n", "pes_semi"): "- 94.64±.05 95.20±.08 92.58±.05 -",
            ("cifar10n", "volminnet"): "- 90.47±.17 88.90±.51 80.87±.25 -",
            ("cifar100n", "ce"): "- - - - 61.19±.51",
            ("cifar100n", "coteaching"): "- - - - 54.48",
            ("cifar100n", "elr"): "- - - - 63.72±.38",
            ("cifar100n", "elr_plus", "2 mixup averaged"): "- - - - 67.87",
            ("cifar100n", "sop"): "- - - - 56.17±1.02",
            ("cifar100n", "sop_plus"): "- - - - 63.88±.32",
            ("cifar100n", "dividemix"): "- - - - 70.91",
            ("cifar100n", "pes_semi"): "- - - - 70.32±.28",
            ("cifar100n", "volminnet"): "- - - - 58.30±.05",
        },
        {},
        "epoch not stated",
    ),
    Table(
        "Gupta (SWCE), Table II",
        "last",
        "ResNet-18",
        "resnet18",
        "idn:0.2 idn:0.3 idn:0.5",
        {("cifar10", "swce"): "94.40 93.60 82.11", ("cifar100", "swce"): "76.61 73.11 61.33"},
        {("cifar10", "swce"): 30, ("cifar100", "swce"): 30},
        'on top of DivideMix and after SimCLR; called accuracy in one place and F1 in another; "idn" not specified',
    ),
    Table(
        "Gupta (SWCE), Table II",
        "last",
        "ResNet-18",
        "resnet18",
        "idn:0.2 idn:0.3 idn:0.5",
        {
            ("cifar10", "ce"): "75.81 69.15 39.42",
            ("cifar10", "mixup"): "73.17 72.02 48.95",
            ("cifar10", "forward"): "74.64 69.75 46.27",
            ("cifar10", "coteaching"): "80.96 78.56 45.92",
            ("cifar10", "dividemix"): "91.94 93.48 80.17",
            ("cifar100", "ce"): "30.42 24.15 14.42",
            ("cifar100", "mixup"): "32.92 29.76 21.31",
            ("cifar100", "forward"): "36.38 33.17 19.27",
            ("cifar100", "coteaching"): "37.96 33.43 23.97",
            ("cifar100", "dividemix"): "70.67 75.89 57.56",
        },
        {},
        'said to be of all methods of the table; called accuracy in one place and F1 in another; "idn" not specified',
    ),
    Table(
        "Gupta (SWCE), Table III",
        "last",
        "ResNet-34",
        "resnet34",
        "idn:0.2 idn:0.3 idn:0.5",
        {("cifar100", "swce"): "79.49 78.52 59.86", ("cifar100", "dividemix"): "78.75 78.79 58.41"},
        {},
        'called accuracy in one place and F1 in another; "idn" not specified',
    ),
    Table(
        "Gupta (SWCE), Table IV",
        "last",
        "ResNet-18",
        "torchvision:resnet18",
        "idn:0.2 idn:0.3",
        {
            ("chest_xray", "ce"): "67.58 64.82",
            ("chest_xray", "dividemix"): "73.24 73.88",
            ("chest_xray", "swce", "nce+mae"): "75.03 69.00",
            ("chaoyang", "ce"): "53.12 46.88",
            ("chaoyang", "dividemix"): "34.46 20.91",
            ("chaoyang", "swce", "nce+mae"): "42.40 43.85",
        },
        {},
        'F1, as the paper says of all its figures; "idn" not specified',
    ),
    Table(
        "Gupta (SWCE), Table V",
        "last",
        "ResNet-18",
        "torchvision:resnet18",
        "idn:0.2 idn:0.3",
        {
            ("chest_xray", "focal"): "80.68 70.45",
            ("chest_xray", "swce", "focal"): "75.18 73.49",
            ("chaoyang", "focal"): "21.63 21.49",
            ("chaoyang", "swce", "focal"): "31.78 24.00",
        },
        {},
        'F1, as the paper says of all its figures; "idn" not specified',
    ),
    *(
        Table(
            f"Nishi et al. 2021 (AugDesc), {source}",
            metric,
            "PreActResNet-18",
            "preact_resnet18_bn_stem",
            f"{_DRAWN_FROM_ALL_OF_FOUR} asymmetric:0.4",
            rows,
            {},
            "one run each",
        )
        for source, metric, rows in _AUGDESC
    ),
    *REAL_TABLES,
)

ALIKE = {
    "torchvision:resnet18": ("resnet18",),
    "torchvision:resnet50": ("resnet50",),
    "preact_resnet18_bn_stem": ("preact_resnet18", "preact_resnet34"),
    "resnet34": ("preact_resnet34",),
    "cnn9_dropout2d_always": ("cnn9", "cnn9_dropout2d"),
}
"""Networks that go by the same name as that of the authors' code, or by the name in the paper, and are others. Their
runs are compared all the same; `deviations` names both networks."""

EPOCHS: dict[tuple[str, ...], int] = {("cifar10", "elr", "cosine"): 150}
"""Epochs of kinds that differ from those of their method."""
