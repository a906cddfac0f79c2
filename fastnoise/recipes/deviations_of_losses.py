"""What stays different between fastnoise and the authors' code of methods that change the loss alone."""

from .deviation import CIFAR, CIFAR10, CIFAR100, Deviation

_EQUAL = (
    "the tables of ELR and NAL compare the losses with ResNet-34 and the course of cross-entropy, and so does ours."
)

OF_LOSSES: tuple[Deviation, ...] = (
    # -- GCE
    Deviation(
        "gce-best-on-test",
        ("gce",),
        (),
        "The public code prunes by the model that was best on the test set; fastnoise by the model as it stands.",
        "test images must not decide what is trained on.",
        uncounted="the two models differ after trainings alone.",
    ),
    # -- losses of Keras
    Deviation(
        "sce-network-cifar10",
        ("sce",),
        CIFAR10,
        "The authors train six convolutions and two dense layers, with weight decay 0.01 on one of them alone.",
        _EQUAL,
        "model",
        "six convolutions",
        size="1.64 million parameters there, 21.28 million here",
    ),
    Deviation(
        "sce-weight-decay",
        ("sce",),
        CIFAR,
        "The authors' SGD has no weight decay (ResNet-44 has 0.01 in the loss).",
        _EQUAL,
        "weight_decay",
        0.0,
        size="decay alone shrinks a weight by 16 % in the 120 epochs of CIFAR-10",
    ),
    Deviation(
        "sce-network-cifar100",
        ("sce",),
        CIFAR100,
        "The authors train ResNet-44.",
        _EQUAL,
        "model",
        "ResNet-44",
        size="0.67 million parameters there, 21.33 million here",
    ),
    Deviation(
        "sce-rate-cifar100",
        ("sce",),
        CIFAR100,
        "The authors train at 0.1.",
        _EQUAL,
        "learning_rate",
        0.1,
        size="10 times ours",
    ),
    Deviation(
        "sce-late-rates",
        ("sce",),
        CIFAR,
        "The authors' rates hold for an epoch more, until the 42nd and 82nd begin (CIFAR-100: 82nd and 122nd).",
        _EQUAL,
        size="2 of 120 epochs and 2 of 150 epochs",
    ),
    Deviation(
        "sce-time-decay",
        ("sce",),
        (),
        "Keras's SGD also divides the rate by 1 + decay * steps (decay 1e-4 to 5e-3 by data set); fastnoise does not.",
        "the committed script has the decay of one data set only.",
        size="after 120 epochs of CIFAR-10 the rate is divided by 5.7 to 236 more",
    ),
    Deviation(
        "sce-initialisation",
        ("sce",),
        CIFAR,
        "The authors draw weights as He et al.; here PyTorch's default does.",
        _EQUAL,
        size="weights are 2.5 times as large there",
    ),
    Deviation(
        "sce-augmentation",
        ("sce",),
        CIFAR,
        "The authors shift images by up to 20 % of their side along each axis, by any fraction of a pixel, and turn "
        "those of CIFAR-100 by up to 20 degrees; fastnoise crops from 4 pixels of padding.",
        _EQUAL,
        size="pixels move by 4.9 pixels on average there (CIFAR-100, turned too: 5.4 pixels), 3.1 pixels here",
    ),
    # -- APL
    Deviation(
        "apl-network-cifar10",
        ("apl",),
        CIFAR10,
        "The authors train an 8-layer network.",
        _EQUAL,
        "model",
        "8 layers",
        size="1.64 million parameters there, 21.28 million here",
    ),
    Deviation(
        "apl-network-cifar100",
        ("apl",),
        CIFAR100,
        "The authors train ResNet-50.",
        _EQUAL,
        "model",
        "resnet50",
        size="23.71 million parameters there, 21.33 million here",
    ),
    # -- GJS
    Deviation(
        "gjs-network",
        ("gjs",),
        CIFAR,
        "The authors train a pre-activation ResNet-34 of three stages of 32, 64 and 128 channels; here resnet34.",
        _EQUAL,
        "model",
        "PreActResNet-34 of 32 to 128 channels",
        size="1.86 million parameters there, 21.28 million here",
    ),
    Deviation(
        "gjs-strong-views",
        ("gjs",),
        CIFAR,
        "The authors change both views by one operation of magnitude 3 of their RandAugment, before crop and flip; "
        "fastnoise the second view alone, after them, by torchvision's operations.",
        "a loader has one RandAugment, and leaves a method's first view plain.",
        uncounted="the operations differ, and so do the images.",
    ),
    # -- SOP
    Deviation(
        "sop-batch",
        ("sop", "sop_plus"),
        (),
        "The authors divide the steps of u and v by the samples of the batch; fastnoise by 128, the size of theirs.",
        "a sample's own numbers then don't depend on the batch, nor on the number of processes.",
        size="a step 1.6 times as long there for the 80 samples of an epoch's last batch",
    ),
    Deviation(
        "sop-strong-view",
        ("sop_plus",),
        CIFAR,
        "The authors change the second view by AutoAugment before crop and flip, with operations of ranges of their "
        "own, and cut a hole into it alone; fastnoise changes it after them, and cuts holes into both views.",
        "a loader has one augmentation, whose AutoAugment alone leaves a method's first view plain.",
        "augment",
        "autoaugment,crop,pad=4,flip,cutout:16 of the second view",
        uncounted="the operations differ, and so do the images.",
    ),
    Deviation(
        "sop-strong-view-constants",
        ("sop_plus",),
        CIFAR100,
        "The authors normalise the second view of CIFAR-100's images by the mean and deviation of CIFAR-10; fastnoise "
        "both views by those of CIFAR-100.",
        "a network should see one scale.",
        size="the second view's contrast is 32, 29 and 37 % higher there",
    ),
)
"""A part of `DEVIATIONS`."""
