"""Recipes against what the authors' code and papers have, typed from them: a difference that is not listed fails."""

from pathlib import Path
from typing import Any

import pytest

from fastnoise.cli import main
from fastnoise.methods import METHODS
from fastnoise.recipes import recipe
from fastnoise.recipes.deviations import DEVIATIONS, as_markdown, deviations_of

AUGMENTED = {"crop_padding": 4, "flip": True}
R34 = {"model": "resnet34", "init": "pytorch", **AUGMENTED}
PREACT = {"model": "preact_resnet18_bn_stem", "init": "pytorch", **AUGMENTED}
SGD = {"optimizer": "sgd", "weight_decay": 1e-3, "learning_rate": 0.02, "batch_size": 128}
HELD_OUT = {"val_fraction": 0.1, "val_split": "clean"}

ELR = R34 | SGD | HELD_OUT
ELR_STEPS = {"momentum": 0.9, "strength": 1.0, "epochs": 120, "schedule": "multistep:40,80,gamma=0.01"}
ELR_100 = {"momentum": 0.9, "strength": 7.0, "epochs": 150, "schedule": "multistep:80,120,gamma=0.01"}
ELR_PLUS = PREACT | SGD | HELD_OUT | {"weight_decay": 5e-4, "mixup_alpha": 1.0, "networks": 2}
ELR_PLUS |= {"average_momentum": 0.997, "average_ramp": 40_000, "averaged": "parameters"}
NAL = R34 | SGD | {"batch_size": 64, "epochs": 500, "schedule": "cosine_restarts:10,min=0.001"}
NAL |= {"momentum": 0.9, "reverse": 0.0, "update_from": 60, "update_every": 10}
SELC = R34 | SGD | {"epochs": 200, "schedule": "multistep:40,80,gamma=0.1", "momentum": 0.9}
PMD = PREACT | SGD | {"learning_rate": 0.1, "weight_decay": 5e-4, "epochs": 150}
PMD |= {"schedule": "multistep:60,120,gamma=0.2"}
DIVIDEMIX = PREACT | SGD | {"weight_decay": 5e-4, "batch_size": 4 * 64, "schedule": "multistep:150,gamma=0.1"}
DIVIDEMIX |= {"epochs": 301, "mixup_alpha": 4.0, "sharpening": 0.5, "unlabelled_ramp": 16, "clean_threshold": 0.5}
AUGDESC = {key: value for key, value in DIVIDEMIX.items() if key not in AUGMENTED and key != "epochs"}
AUGDESC |= {"batch_size": 4 * 128, "augment": "crop,pad=4,flip,autoaugment:cifar10", "warm_up_view": "weak"}
COTEACHING = {"model": "cnn9_dropout2d_always", "dropout": 0.25, "optimizer": "adam", "learning_rate": 1e-3}
COTEACHING |= {"weight_decay": 0.0, "batch_size": 128, "epochs": 199, "schedule": "linear:79", "forget_epochs": 10}
COTEACHING |= {"crop_padding": 0, "flip": False, "normalisation": "none", "drop_last": True, "variant": "code"}
JOCOR = {key: value for key, value in COTEACHING.items() if key != "dropout"} | {"model": "cnn7"}
CORES = R34 | AUGMENTED | {"optimizer": "sgd:momentum=0", "learning_rate": 0.1, "weight_decay": 0.0, "batch_size": 64}
CORES |= {"epochs": 100, "schedule": "multistep:50,gamma=0.1", "strength": 2.0, "normalisation": "dataset"}
CORES |= {"ramp_from": 11, "ramp_to": 40, "sieve_from": 32, "damping": "on"}
DISC = {"init": "pytorch", "model": "resnet18", "optimizer": "sgd:momentum=0", "learning_rate": 0.1, "batch_size": 128}
DISC |= {"weight_decay": 1e-3, "epochs": 200, "schedule": "multistep:80,160,gamma=0.1", "warm_up": 20}
DISC |= {"threshold_momentum": 0.99, "hard_strength": 1.0, "mixup_alpha": 5.0, "q": 0.7}
DISC_HIGH = DISC | {"threshold_momentum": 0.95, "hard_strength": 0.2}
PES = {"init": "pytorch", "optimizer": "sgd", "batch_size": 128, "learning_rate": 0.1, "weight_decay": 1e-4}
PES |= AUGMENTED | {"epochs": 200, "schedule": "multistep:100,150,gamma=0.1", "val_fraction": 0.1}
PES |= {"stage_epochs": 7, "head_epochs": 5, "refine_rate": 1e-4}
PES_SEMI = PREACT | SGD | {"weight_decay": 5e-4, "epochs": 300, "schedule": "cosine:min=0.0002", "sharpening": 0.5}
PES_SEMI |= {"stage_epochs": 0, "head_epochs": 5, "refine_rate": 1e-4, "mixup_alpha": 4.0, "late_mixup_alpha": 0.75}
PES_SEMI |= {"unlabelled_ramp": 16, "late_from": 151 + 5}
PROMIX = {"model": "resnet18", "init": "network", "optimizer": "sgd", "batch_size": 256, "learning_rate": 0.05}
PROMIX |= {"weight_decay": 5e-4, "epochs": 601, "schedule": "cosine:min=0.00005", "drop_last": True, "warm_up": 10}
PROMIX |= {"threshold": 0.99, "debias": 0.8, "mixup_alpha": 4.0, "prior_momentum": 0.9999, "strong_ramp": 50}
PROMIX |= {"guess_from": 352, "guess_share": 0.9, "rest_strength": 0.1, "rest_ramp": 100, "rest_until": 100}
PROMIX |= {"augment": "randaugment:3 of its own, flip, crop"}
PROMIX_100 = {"warm_up": 30, "threshold": 0.95, "debias": 0.5}
SOP = R34 | SGD | {"weight_decay": 5e-4, "epochs": 120, "schedule": "multistep:40,80,gamma=0.1"}
SOP_PLUS = (
    {"model": "preact_resnet18_bn_stem", "init": "pytorch"}
    | SGD
    | {"epochs": 300, "schedule": "cosine:min=0.0002", "consistency": 0.9, "class_balance": 0.1}
)
SOP_PLUS |= {"augment": "autoaugment,crop,pad=4,flip,cutout:16 of the second view"}
GJS = {"init": "pytorch", "optimizer": "sgd:momentum=0.9,nesterov", "batch_size": 128, "drop_last": True}
GJS |= {"epochs": 400, "schedule": "multistep:200,300,gamma=0.1", "views": 2, "scale": "on", "passes": "by_view"}
GJS |= {"model": "PreActResNet-34 of 32 to 128 channels"}
SSR = PREACT | SGD | {"weight_decay": 5e-4, "batch_size": 3 * 128, "epochs": 300, "schedule": "cosine:min=0.0004"}
SSR = {key: value for key, value in SSR.items() if key not in AUGMENTED}
SSR |= {"augment": "crop,pad=4,flip,autoaugment:cifar10", "mixup_alpha": 4.0, "neighbours": 200}
SSR |= {"select_threshold": 1.0, "relabel_threshold": 0.9}
CE_10 = R34 | SGD | {"learning_rate": 0.01, "weight_decay": 1e-4, "epochs": 120}
CE_10 |= {"schedule": "multistep:40,80,gamma=0.1"}
CE_100 = CE_10 | {"epochs": 150, "schedule": "multistep:80,120,gamma=0.1"}
APL = {"optimizer": "sgd", "clip_norm": 5.0, "batch_size": 128, "gamma": 0.5, "mae": "reduced"}
PLC = R34 | SGD | {"optimizer": "sgd:momentum=0.9,nesterov", "learning_rate": 0.01, "weight_decay": 5e-4}
PLC |= {"epochs": 180, "schedule": "multistep:40,80,gamma=0.5", "val_fraction": 0.1, "warm_up": 8, "window": 5}
PLC |= {"threshold": 0.3, "threshold_step": 0.1, "normalisation": "dataset"}
DUAL_T = {"optimizer": "sgd:momentum=0", "learning_rate": 0.01, "weight_decay": 1e-4, "batch_size": 128}
DUAL_T |= {"val_fraction": 0.1, "schedule": "multistep:50,100,150,gamma=0.1", "percentile": 97.0}
VOLMINNET = {"init": "pytorch", "optimizer": "sgd", "learning_rate": 0.01, "weight_decay": 1e-4, "batch_size": 128}
VOLMINNET |= {"val_fraction": 0.1, "strength": 1e-4, "transition_rate": 0.01}
VOLMINNET_CIFAR = VOLMINNET | AUGMENTED | {"epochs": 80, "schedule": "multistep:30,60,gamma=0.1"}
FORWARD = SGD | AUGMENTED | {"model": "resnet34", "learning_rate": 0.1, "val_fraction": 0.1}
SWCE = {"model": "resnet18", "optimizer": "adam", "learning_rate": 1e-4, "weight_decay": 0.03}

SWCE_MEDICAL = SWCE | {"model": "torchvision:resnet18", "warm_up": 5, "selection_threshold": 0.25, "copies": 2}
SWCE_MEDICAL |= {"stages": "2,3,4;2,5,7;2,5,7;2,5,7", "rate_factors": "1,1,0.1,0.1,0.01"}

ANIMAL = {"model": "vgg19_bn", "dropout": 0.5, "optimizer": "sgd:momentum=0", "learning_rate": 0.1, "batch_size": 128}
ANIMAL |= {"weight_decay": 1e-3, "epochs": 100, "schedule": "multistep:50,75,gamma=0.2", "init": "pytorch"}
ANIMAL |= {"augment": "animal10n", "drop_last": True, "epoch_batches": None}
CLOTHING = {"model": "torchvision:resnet50,weights=V1", "batch_size": 64, "optimizer": "sgd", "weight_decay": 1e-3}
CLOTHING |= {"epoch_batches": 2000, "balance": "subset", "augment": "clothing1m", "normalisation": "dataset"}
WEBVISION = {"model": "timm:inception_resnet_v2", "batch_size": 32, "optimizer": "sgd", "weight_decay": 5e-4}
WEBVISION |= {"augment": "mini_webvision", "normalisation": "dataset", "epoch_batches": None}

SYMMETRIC, ASYMMETRIC = "symmetric:0.4", "asymmetric:0.4"
PMD_SPEC = "pmd:0.35,posteriors=p.npy"

AUTHORS: dict[tuple[str, str, str], dict[str, Any]] = {
    ("elr", "cifar10", SYMMETRIC): ELR
    | {"momentum": 0.7, "strength": 3.0, "epochs": 150, "schedule": "cosine_restarts:10,min=0.001"},
    ("elr", "cifar10", ASYMMETRIC): ELR | ELR_STEPS,
    ("elr", "cifar100", SYMMETRIC): ELR | ELR_100,
    ("elr", "cifar100", ASYMMETRIC): ELR | ELR_100,
    ("elr_plus", "cifar10", SYMMETRIC): ELR_PLUS
    | {"momentum": 0.7, "strength": 3.0, "strength_ramp": 0, "target": "labels"}
    | {"epochs": 200, "schedule": "multistep:150,gamma=0.1"},
    ("elr_plus", "cifar10", ASYMMETRIC): ELR_PLUS
    | {"momentum": 0.9, "strength": 1.0, "strength_ramp": 0, "target": "labels"}
    | {"epochs": 200, "schedule": "multistep:150,gamma=0.1"},
    ("elr_plus", "cifar100", SYMMETRIC): ELR_PLUS
    | {"momentum": 0.9, "strength": 7.0, "strength_ramp": 40_000, "target": "weighted"}
    | {"epochs": 250, "schedule": "multistep:200,gamma=0.1"},
    ("nal code", "cifar10", SYMMETRIC): NAL | {"strength": 0.5},
    ("nal code", "cifar10", ASYMMETRIC): NAL | {"strength": 0.5, "epochs": 300},
    ("nal code", "cifar100", SYMMETRIC): NAL | {"strength": 10.0},
    ("nal code", "cifar100", ASYMMETRIC): NAL | {"strength": 10.0},
    ("nal code", "cifar10", PMD_SPEC): PMD | {"strength": 0.5, "momentum": 0.9},
    **{
        ("selc", dataset, f"symmetric:{rate}"): SELC | {"update_from": last + 1}
        for dataset, lasts in (("cifar10", (40, 30, 30, 40)), ("cifar100", (30, 20, 30, 40)))
        for rate, last in zip((0.2, 0.4, 0.6, 0.8), lasts, strict=True)
    },
    ("selc", "cifar10", ASYMMETRIC): SELC | {"update_from": 41},
    ("selc", "cifar100", ASYMMETRIC): SELC | {"update_from": 21},
    ("selc_plus", "cifar10", SYMMETRIC): SELC | {"update_from": 31, "mixup_alpha": 0.9, "epochs": 400},
    ("selc", "cifar10", PMD_SPEC): PMD | {"update_from": 41, "momentum": 0.9},
    ("selc", "cifar100", PMD_SPEC): PMD | {"update_from": 41, "momentum": 0.9},
    **{
        ("dividemix", "cifar10", noise): DIVIDEMIX | {"warm_up": 10, "unlabelled_strength": strength, **more}
        for noise, strength, more in (
            ("symmetric:0.2", 0.0, {}),
            ("symmetric:0.5", 25.0, {}),
            ("symmetric:0.8", 25.0, {}),
            ("symmetric:0.9", 50.0, {"clean_threshold": 0.6, "loss_epochs": 5}),
            (ASYMMETRIC, 0.0, {"confidence_penalty": 1.0}),
        )
    },
    **{
        ("dividemix", "cifar100", f"symmetric:{rate}"): DIVIDEMIX | {"warm_up": 30, "unlabelled_strength": strength}
        for rate, strength in ((0.2, 25.0), (0.5, 150.0), (0.8, 150.0))
    },
    **{
        ("augdesc", dataset, noise): AUGDESC
        | {"warm_up": 10 if dataset == "cifar10" else 30, "unlabelled_strength": strength, "epochs": epochs}
        | {"schedule": f"multistep:{milestone},gamma=0.1", **more}
        for dataset, noise, strength, epochs, milestone, more in (
            ("cifar10", "symmetric:0.2", 0.0, 300, 150, {}),
            ("cifar10", "symmetric:0.5", 25.0, 300, 150, {}),
            ("cifar10", "symmetric:0.8", 25.0, 350, 200, {}),
            ("cifar10", "symmetric:0.9", 50.0, 350, 250, {"clean_threshold": 0.6, "loss_epochs": 5}),
            ("cifar10", ASYMMETRIC, 0.0, 350, 250, {"confidence_penalty": 1.0}),
            ("cifar100", "symmetric:0.2", 25.0, 400, 300, {}),
            ("cifar100", "symmetric:0.5", 150.0, 400, 300, {}),
            ("cifar100", "symmetric:0.9", 150.0, 400, 300, {"clean_threshold": 0.6, "loss_epochs": 5}),
        )
    },
    ("augdesc", "clothing1m", "none"): CLOTHING
    | {"augment": "resize:256,crop:224,flip,autoaugment:imagenet"}
    | {"batch_size": 4 * 32, "epoch_batches": 1000, "learning_rate": 0.002, "epochs": 80}
    | {"schedule": "multistep:40,gamma=0.1", "warm_up": 1, "mixup_alpha": 0.5, "unlabelled_strength": 0.0},
    ("coteaching", "mnist", "pair:0.45"): COTEACHING | {"forget_rate": 0.45},
    ("coteaching", "cifar10", "symmetric:0.5"): COTEACHING | {"forget_rate": 0.5},
    ("coteaching", "cifar100", "symmetric:0.2"): COTEACHING | {"forget_rate": 0.2, "schedule": "linear:99"},
    ("jocor", "cifar10", "symmetric:0.5"): JOCOR | {"forget_rate": 0.5, "strength": 0.9},
    ("jocor", "cifar10", "symmetric:0.8"): JOCOR | {"forget_rate": 0.8, "strength": 0.65},
    ("jocor", "cifar10", ASYMMETRIC): JOCOR | {"forget_rate": 0.2, "strength": 0.9},
    ("jocor", "cifar100", "symmetric:0.2"): JOCOR | {"forget_rate": 0.2, "strength": 0.85, "schedule": "linear:99"},
    **{
        ("promix", dataset, noise): PROMIX | (PROMIX_100 if dataset.startswith("cifar100") else {}) | more
        for dataset, noise, more in (
            ("cifar10", "symmetric:0.2", {"keep_from": 0.7, "keep_to": 0.7}),
            ("cifar10", "symmetric:0.5", {"keep_from": 0.5, "keep_to": 0.5}),
            ("cifar10", ASYMMETRIC, {"keep_from": 0.5, "keep_to": 0.5}),
            ("cifar10n", "human:worse", {"keep_from": 0.5, "keep_to": 0.5}),
            ("cifar100", "symmetric:0.5", {"keep_from": 0.5, "keep_to": 0.5}),
            ("cifar100n", "human:noisy", {"keep_from": 0.5, "keep_to": 0.5}),
        )
    },
    ("pes", "cifar10", SYMMETRIC): PES | {"model": "resnet18", "warm_up": 25},
    ("pes", "cifar100", SYMMETRIC): PES | {"model": "resnet34", "warm_up": 30},
    ("pes_semi", "cifar10", SYMMETRIC): PES_SEMI | {"warm_up": 20, "unlabelled_strength": 150.0},
    ("pes_semi", "cifar100", "pair:0.45"): PES_SEMI | {"warm_up": 35, "unlabelled_strength": 50.0},
    ("pes_semi", "cifar10n", "human:worse"): PES_SEMI
    | {"model": "resnet34", "warm_up": 20, "unlabelled_strength": 5.0},
    ("ssr", "cifar10", SYMMETRIC): SSR,
    ("ssr_plus", "cifar10", ASYMMETRIC): SSR | {"consistency": 1.0},
    **{
        ("ssr_plus", "cifar100", f"symmetric:{rate}"): SSR | {"consistency": 1.0, "relabel_threshold": threshold}
        for rate, threshold in ((0.2, 0.9), (0.5, 0.8), (0.8, 0.8), (0.9, 0.8))
    },
    ("cores", "cifar10", SYMMETRIC): CORES,
    ("disc", "cifar10", SYMMETRIC): DISC,
    ("disc", "cifar10", ASYMMETRIC): DISC | {"threshold_momentum": 0.95},
    ("disc", "cifar100", "idn:0.4"): DISC | {"model": "resnet34", "warm_up": 15},
    ("disc", "cifar10", "idn:0.6"): DISC_HIGH | {"model": "resnet34", "warm_up": 15},
    ("disc", "cifar10", "symmetric:0.8"): DISC_HIGH
    | {"optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 0.0, "schedule": "linear:120"},
    ("cores", "cifar100", "idn:0.4"): CORES,
    **{
        ("gjs", dataset, f"{noise}:{rate}" if rate else "none"): GJS
        | {"pi": pi, "learning_rate": learning_rate, "weight_decay": decay}
        for dataset, noise, learning_rate, decay, values in (
            ("cifar10", "symmetric", 0.1, 5e-4, {0: 0.5, 0.2: 0.3, 0.4: 0.9, 0.6: 0.1, 0.8: 0.1}),
            ("cifar10", "asymmetric", 0.1, 1e-3, {0.2: 0.3, 0.4: 0.3}),
            ("cifar100", "symmetric", 0.2, 5e-5, {0: 0.3, 0.2: 0.3, 0.4: 0.5, 0.6: 0.9, 0.8: 0.1}),
            ("cifar100", "asymmetric", 0.4, 1e-4, {0.2: 0.5, 0.4: 0.1}),
        )
        for rate, pi in values.items()
    },
    ("sop", "cifar10", SYMMETRIC): SOP | {"rate_u": 10.0, "rate_v": 10.0},
    ("sop", "cifar10n", "human:worse"): SOP | {"rate_u": 10.0, "rate_v": 10.0},
    ("sop", "cifar10", ASYMMETRIC): SOP | {"rate_u": 10.0, "rate_v": 100.0},
    ("sop", "cifar100", SYMMETRIC): SOP | {"rate_u": 1.0, "rate_v": 10.0},
    ("sop", "cifar100n", "human:noisy"): SOP | {"rate_u": 1.0, "rate_v": 10.0},
    ("sop", "cifar100", ASYMMETRIC): SOP | {"rate_u": 0.1, "rate_v": 100.0},
    ("sop_plus", "cifar10", SYMMETRIC): SOP_PLUS | {"rate_u": 10.0, "rate_v": 10.0},
    ("sop_plus", "cifar10", ASYMMETRIC): SOP_PLUS | {"rate_u": 10.0, "rate_v": 100.0},
    ("sop_plus", "cifar100", SYMMETRIC): SOP_PLUS | {"rate_u": 1.0, "rate_v": 10.0},
    ("sop_plus", "cifar100", ASYMMETRIC): SOP_PLUS | {"rate_u": 0.1, "rate_v": 100.0},
    ("ce", "cifar10", SYMMETRIC): CE_10,
    ("ce", "cifar100", SYMMETRIC): CE_100,
    ("gce", "cifar10", SYMMETRIC): CE_10 | {"q": 0.7, "k": 0.5, "update_from": 40, "update_every": 10},
    ("gce", "cifar100", SYMMETRIC): CE_100 | {"q": 0.7, "k": 0.5, "update_from": 80, "update_every": 10},
    ("sce", "cifar10", SYMMETRIC): CE_10
    | {"alpha": 0.1, "beta": 1.0, "model": "six convolutions", "weight_decay": 0.0},
    ("sce", "cifar100", SYMMETRIC): CE_100
    | {"alpha": 6.0, "beta": 0.1, "model": "ResNet-44", "weight_decay": 0.0, "learning_rate": 0.1},
    ("sce", "mnist", SYMMETRIC): {"alpha": 0.01, "beta": 1.0, "model": "cnn4", "learning_rate": 0.1, "epochs": 50}
    | {"schedule": "multistep:11,31,gamma=0.1", "batch_size": 128, "weight_decay": 0.0, "normalisation": "none"},
    ("apl", "cifar10", SYMMETRIC): APL
    | {"alpha": 1.0, "beta": 1.0, "learning_rate": 0.01, "weight_decay": 1e-4, "epochs": 120}
    | {"schedule": "cosine", "model": "8 layers"},
    ("apl", "cifar100", SYMMETRIC): APL
    | {"alpha": 10.0, "beta": 1.0, "learning_rate": 0.1, "weight_decay": 1e-5, "epochs": 200}
    | {"schedule": "cosine", "model": "resnet50", "augment": "crop,pad=4,flip,rotate:20"},
    ("apl", "mnist", SYMMETRIC): APL
    | {"alpha": 1.0, "beta": 10.0, "learning_rate": 0.01, "weight_decay": 1e-2, "epochs": 50, "model": "cnn4"}
    | {"schedule": "cosine:min=0.001", "optimizer": "sgd:momentum=0.9,nesterov"},
    ("bootstrap", "cifar10", SYMMETRIC): CE_10 | {"kind": "soft", "beta": "auto"},
    ("forward", "cifar10", SYMMETRIC): FORWARD
    | {"epochs": 120, "schedule": "multistep:40,80,gamma=0.1", "weight_decay": 1e-4, "percentile": 97.0},
    ("forward", "cifar100", SYMMETRIC): FORWARD
    | {"epochs": 150, "schedule": "multistep:80,120,gamma=0.1", "weight_decay": 1e-3, "percentile": 100.0},
    ("dual_t", "mnist", SYMMETRIC): DUAL_T | {"model": "mlp of 784-128-128-10", "warm_up": 100, "epochs": 300},
    ("dual_t", "cifar10", SYMMETRIC): DUAL_T
    | AUGMENTED
    | {"model": "torchvision:resnet18", "normalisation": "dataset", "warm_up": 20, "epochs": 220},
    ("dual_t", "cifar100", SYMMETRIC): DUAL_T
    | AUGMENTED
    | {"model": "torchvision:resnet34", "normalisation": "cifar10", "warm_up": 20, "epochs": 220},
    ("volminnet", "mnist", SYMMETRIC): VOLMINNET
    | {"model": "lenet5", "epochs": 60, "schedule": "constant", "transition_optimizer": "adam", "crop_padding": 0},
    ("volminnet", "cifar10", SYMMETRIC): VOLMINNET_CIFAR
    | {"model": "resnet18", "transition_optimizer": "sgd", "normalisation": "dataset", "initial": "auto"},
    ("volminnet", "cifar100", SYMMETRIC): VOLMINNET_CIFAR
    | {"model": "resnet34", "transition_optimizer": "adam", "normalisation": "cifar10", "initial": -4.5},
    ("plc", "cifar10", PMD_SPEC): PLC,
    ("plc", "cifar100", PMD_SPEC): PLC | {"normalisation": "cifar10"},
    ("plc", "cifar100", f"{PMD_SPEC},hybrid=symmetric:0.3"): PLC | {"normalisation": "cifar10", "warm_up": 15},
    ("swce", "cifar10", "idn:0.2"): SWCE
    | {"warm_up": 5, "stages": "2,3,4;2,5,7;2,5,7;2,5,7", "selection_threshold": 1.0, "copies": 2},
    ("ce", "mnist", "heterogeneous:0.5,clean=3"): {"model": "lenet5", "batch_size": 128, "epochs": 14},
    # real noise: NAL's, SELC's and PLC's code of ANIMAL-10N
    ("nal code", "animal10n", "none"): ANIMAL
    | {"strength": 0.5, "momentum": 0.9, "update_from": 40, "update_every": 1},
    ("selc", "animal10n", "none"): ANIMAL | {"momentum": 0.9, "update_from": 41},
    ("plc", "animal10n", "none"): ANIMAL | {"warm_up": 40, "window": 10, "threshold": 0.3, "threshold_step": 0.1},
    # Clothing1M
    ("nal code", "clothing1m", "none"): CLOTHING
    | {"model": "torchvision:resnet50", "learning_rate": 0.02, "epochs": 400, "strength": 50.0, "reverse": 0.1}
    | {"schedule": "cosine_restarts:10,min=0.0001", "momentum": 0.9, "update_from": 60, "update_every": 10},
    ("selc", "clothing1m", "none"): CLOTHING
    | {"learning_rate": 0.01, "epochs": 40, "schedule": "multistep:10,20,gamma=0.1", "update_from": 6, "momentum": 0.8},
    ("elr_plus", "clothing1m", "none"): CLOTHING
    | {"learning_rate": 0.002, "epochs": 15, "schedule": "multistep:7,gamma=0.1", "epoch_batches": 3000}
    | {"strength": 3.0, "momentum": 0.7, "mixup_alpha": 1.0, "networks": 2, "average_momentum": 0.9999}
    | {"average_ramp": 9999, "strength_ramp": 0, "target": "labels"},
    ("dividemix", "clothing1m", "none"): CLOTHING
    | {"batch_size": 4 * 32, "epoch_batches": 1000, "learning_rate": 0.002, "epochs": 80}
    | {"schedule": "multistep:40,gamma=0.1", "warm_up": 1, "mixup_alpha": 0.5, "unlabelled_strength": 0.0}
    | {"clean_threshold": 0.5, "sharpening": 0.5, "confidence_penalty": 0.0},
    ("plc", "clothing1m", "none"): {"model": "torchvision:resnet50,weights=V1", "batch_size": 32, "learning_rate": 1e-3}
    | {"epochs": 15, "schedule": "multistep:6,11,gamma=0.5", "warm_up": 1, "threshold": 0.7}
    | {"augment": "resize:256x256, then crop and flip"},
    # mini WebVision
    ("nal code", "mini_webvision", "none"): WEBVISION
    | {"learning_rate": 0.02, "epochs": 500, "schedule": "cosine_restarts:10,min=0.001", "strength": 50.0}
    | {"reverse": 0.1, "momentum": 0.9, "update_from": 200, "update_every": 10},
    ("selc", "mini_webvision", "none"): WEBVISION
    | {"learning_rate": 0.01, "epochs": 100, "schedule": "multistep:40,80,gamma=0.1", "update_from": 41}
    | {"momentum": 0.9},
    ("elr_plus", "mini_webvision", "none"): WEBVISION
    | {"learning_rate": 0.02, "epochs": 100, "schedule": "multistep:50,gamma=0.1", "mixup_alpha": 1.5}
    | {"average_momentum": 0.997, "average_ramp": 40_000, "networks": 2},
    ("dividemix", "mini_webvision", "none"): WEBVISION
    | {"batch_size": 4 * 32, "learning_rate": 0.01, "epochs": 80, "mixup_alpha": 0.5, "unlabelled_strength": 0.0},
    # others
    ("plc", "food101n", "none"): {"model": "torchvision:resnet50,weights=V1", "batch_size": 32, "learning_rate": 0.005}
    | {"epochs": 30, "schedule": "multistep:10,20,gamma=0.1", "warm_up": 4, "window": 4, "threshold": 0.1}
    | {"threshold_step": 0.05, "augment": "food101n"},
    ("swce", "chest_xray", "idn:0.2"): SWCE_MEDICAL,
    ("swce", "chaoyang", "idn:0.2"): SWCE_MEDICAL,
}
"""(method with its variant, data set, noise) -> the authors' hyperparameters."""


@pytest.mark.parametrize("case", AUTHORS, ids=" ".join)
def test_recipes_are_the_authors_but_for_what_is_listed(case: tuple[str, str, str]) -> None:
    name, dataset, noise = case
    method, _, variant = name.partition(" ")
    config = recipe(method, dataset, noise, variant or None)  # type: ignore[arg-type]
    ours = config.flat()
    about = method, dataset, noise.partition(":")[0]
    listed = {each.field: each.theirs for each in DEVIATIONS if each.field and each.holds(*about)}
    for field, theirs in AUTHORS[case].items():
        assert (ours[field] == theirs) != (field in listed), f"{field}: here {ours[field]}, there {theirs}"
        assert field not in listed or listed[field] == theirs


def test_every_listed_field_belongs_to_a_recipe_of_the_table() -> None:
    for deviation in DEVIATIONS:
        assert set(deviation.methods) <= set(METHODS)
        if not deviation.field:
            continue
        met = [
            key
            for key, theirs in AUTHORS.items()
            if deviation.holds(key[0].partition(" ")[0], key[1], key[2].partition(":")[0]) and deviation.field in theirs
        ]
        assert met, f"no recipe of the table has the deviation in {deviation.field}: {deviation.what}"


def test_a_run_with_the_authors_value_does_not_deviate_in_it() -> None:
    config = recipe("sce", "cifar100", "symmetric:0.4")
    fields = {each.field for each in deviations_of(config)}
    assert {"model", "weight_decay", "learning_rate"} <= fields
    assert {each.field for each in deviations_of(config.replace({"learning_rate": 0.1}))} == fields - {"learning_rate"}


def test_deviations_say_what_and_why() -> None:
    for deviation in DEVIATIONS:
        assert deviation.what.endswith(".")
        assert deviation.why.endswith(".")
    assert len({(each.methods, each.datasets, each.what) for each in DEVIATIONS}) == len(DEVIATIONS)


def test_the_document_is_made_from_the_table() -> None:
    document = Path(__file__).resolve().parents[1] / "fastnoise" / "deviations.md"
    assert document.read_text() == as_markdown()


def test_the_command_prints_those_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--method", "coteaching", "--dataset", "mnist", "--noise", "pair:0.45", "--deviations"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.startswith("coteaching on mnist with pair:0.45: deviations from the authors' code that stay\n- ")
    assert "beta1" in said
    assert "401 of 468 batches" in said
    assert main(["train", "--method", "label_smoothing", "--dataset", "digits", "--deviations"]) == 0
    assert capsys.readouterr().out.endswith("no deviations from the authors' code are known.\n")
    assert main(["train", "--method", "auto", "--dataset", "digits", "--deviations"]) == 2
    assert "--deviations lists those of one method, and auto is none" in capsys.readouterr().err


@pytest.mark.parametrize("dataset", ["clothing1m", "mini_webvision", "red_mini_imagenet", "animal10n"])
def test_what_builds_on_another_method_has_its_settings_of_the_data_set(dataset: str) -> None:
    own = {"method", "pretrain_epochs", "pretrain_rate", "min_area", "warm_up", "clean_threshold", "epochs"}
    own |= {"augment", "eval_augment"}
    theirs = recipe("dividemix", dataset).flat()
    for method in ("c2d", "augdesc"):
        ours = recipe(method, dataset).flat()
        assert {name: ours[name] for name in theirs if name not in own} == {
            name: value for name, value in theirs.items() if name not in own
        }
    epochs = 120 if dataset == "clothing1m" else theirs["epochs"]
    assert recipe("c2d", dataset).optim.epochs == 20 + epochs
    plain, plus = recipe("selc", dataset).flat(), recipe("selc_plus", dataset).flat()
    assert plus.items() >= (plain | {"method": "selc_plus", "epochs": 2 * plain["epochs"], "mixup_alpha": 0.9}).items()
