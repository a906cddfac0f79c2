"""Tables of published accuracies on data sets with real noise."""

from .published_table import Table

REAL_TABLES = (
    Table(
        "Nishi et al. 2021 (AugDesc), Clothing1M",
        "last",
        "ResNet-50, pretrained on ImageNet",
        "torchvision:resnet50",
        "none",
        {("clothing1m", "augdesc", "weak"): "74.72", ("clothing1m", "augdesc", "strong"): "75.11"},
        {("clothing1m", "augdesc"): 80},
        "epoch not stated; the strong warm-up is on CIFAR-10's policy",
    ),
    Table(
        "Lu et al. 2022 (NAL), Table 3",
        "last",
        "VGG-19 with batch normalisation",
        "vgg19_bn",
        "none",
        {
            ("animal10n", "ce"): "79.40±.14",
            ("animal10n", "plc"): "83.40±.43",
            ("animal10n", "selc"): "83.73±.06",
            ("animal10n", "nal", "full"): "84.18±.19",
        },
        {("animal10n", "nal"): 100},
        "epoch not stated; the others' taken from their papers",
    ),
    Table(
        "Lu et al. 2022 (NAL), Table 4",
        "last",
        "ResNet-50",
        "torchvision:resnet50",
        "none",
        {
            ("clothing1m", "ce"): "69.21",
            ("clothing1m", "sce"): "71.02",
            ("clothing1m", "elr"): "72.87",
            ("clothing1m", "nal", "reverse"): "73.58",
        },
        {("clothing1m", "nal"): 400},
        "epoch not stated; NAL from scratch, with the reverse term; others pretrained on ImageNet, from their papers",
    ),
    *(
        Table(
            "Lu et al. 2022 (NAL), Table 5",
            "last",
            "Inception-ResNet-v2",
            "timm:inception_resnet_v2",
            "none",
            {
                ("mini_webvision", "coteaching"): coteaching,
                ("mini_webvision", "elr"): elr,
                ("mini_webvision", "nal", "reverse"): nal,
            },
            {("mini_webvision", "nal"): 500},
            "epoch not stated; NAL with the reverse term; the others' taken from their papers",
            test_set,
            top,
        )
        for test_set, top, coteaching, elr, nal in (
            ("", 1, "63.58", "76.26", "77.41"),
            ("", 5, "85.20", "91.26", "92.25"),
            ("ILSVRC2012", 1, "61.48", "68.71", "74.09"),
            ("ILSVRC2012", 5, "84.70", "87.84", "92.09"),
        )
    ),
    Table(
        "Liu et al. 2020 (ELR), Table 3",
        "validation",
        "ResNet-50, pretrained on ImageNet",
        "torchvision:resnet50",
        "none",
        {("clothing1m", "elr", "steps"): "72.87", ("clothing1m", "elr_plus", "2 mixup averaged"): "74.81"},
        {("clothing1m", "elr_plus"): 15},
    ),
    Table(
        "Liu et al. 2020 (ELR), Table 3",
        "last",
        "ResNet-50, pretrained on ImageNet",
        "torchvision:resnet50",
        "none",
        {
            ("clothing1m", "ce"): "69.10",
            ("clothing1m", "forward"): "69.84",
            ("clothing1m", "gce"): "69.75",
            ("clothing1m", "sce"): "71.02",
            ("clothing1m", "dividemix"): "74.76",
        },
        {},
        "taken there from earlier papers, epoch not stated",
    ),
    *(
        Table(
            "Liu et al. 2020 (ELR), Table 4",
            "last",
            "Inception-ResNet-v2",
            "timm:inception_resnet_v2",
            "none",
            {
                ("mini_webvision", "coteaching"): coteaching,
                ("mini_webvision", "elr"): elr,
                ("mini_webvision", "elr_plus", "2 mixup averaged"): elr_plus,
            },
            {("mini_webvision", "elr_plus"): 100},
            "epoch not stated; the others' taken from earlier papers",
            test_set,
            top,
        )
        for test_set, top, coteaching, elr, elr_plus in (
            ("", 1, "63.58", "76.26", "77.78"),
            ("", 5, "85.20", "91.26", "91.68"),
            ("ILSVRC2012", 1, "61.48", "68.71", "70.29"),
            ("ILSVRC2012", 5, "84.70", "87.84", "89.76"),
        )
    ),
)
