"""Deviations of the methods that take some samples as labelled and others as unlabelled, for `deviations`."""

from .deviation import CIFAR, Deviation

SEMI = (
    # -- PES
    Deviation(
        "pes-epochs",
        ("pes",),
        CIFAR,
        "The authors count both refinements as one of 200 epochs; fastnoise counts each of their 12.",
        "an epoch is a pass over the samples.",
        "epochs",
        200,
        size="SGD has 199 epochs there and here",
    ),
    Deviation(
        "pes-milestones",
        ("pes",),
        CIFAR,
        "The authors' schedule counts the epoch of the refinements; fastnoise's the epochs of SGD alone.",
        "other epochs have rates of their own.",
        "schedule",
        "multistep:100,150,gamma=0.1",
        size="the rate falls after 99 and 149 epochs of SGD there and here",
    ),
    Deviation(
        "pes-semi-epochs",
        ("pes_semi",),
        CIFAR,
        "The authors count the refinement as a part of the next of 300 epochs; fastnoise counts each of its 5, and its "
        "cosine goes over all 305, of which SGD has 300.",
        "an epoch is a pass over the samples.",
        "epochs",
        300,
        size="the last epoch's rate is 1.09 times that of the authors",
    ),
    Deviation(
        "pes-stale-optimizer",
        ("pes", "pes_semi"),
        (),
        "The authors' SGD is made before layers are renewed and never trains the new ones; fastnoise begins a new SGD "
        "of all layers after the refinement, as the paper has it.",
        "the paper trains the whole network; --renewed frozen does as the authors' code.",
        size="17 of 62 tensors of resnet18 are not trained there",
    ),
    Deviation(
        "pes-judged-as-they-are",
        ("pes", "pes_semi"),
        CIFAR,
        "The authors choose samples by the mean prediction for two cropped and flipped views; fastnoise by that for "
        "the image as it is.",
        "a pass over the training set has no augmentation.",
        uncounted="the two choose other samples with a network that has trained alone.",
    ),
    Deviation(
        "pes-validation",
        ("pes",),
        CIFAR,
        "The authors' held-out images are cropped and flipped as in training; fastnoise's are as they are.",
        "an accuracy is that of the images as they are.",
        uncounted="it depends on the network.",
    ),
    Deviation(
        "pes-semi-guesses",
        ("pes_semi",),
        (),
        "The authors guess from views of unlabelled samples alone; fastnoise sends those of all through the network.",
        "a step that is compiled or captured has batches of one size.",
        uncounted="it moves batch norm's statistics, by the share of samples that are chosen.",
    ),
    Deviation(
        "pes-semi-no-unlabelled",
        ("pes_semi",),
        (),
        "The authors' code ends with an error if fewer than one in 128 samples is unlabelled; fastnoise then learns "
        "from labelled ones alone.",
        "a run must not end by a division.",
        size="an error there, 0 of 128 samples of a batch unlabelled here",
    ),
    # -- ProMix
    Deviation(
        "promix-last-epoch",
        ("promix",),
        CIFAR,
        "The authors' loop runs over epochs 0 to 600, which are 601.",
        "a round number.",
        "epochs",
        601,
        size="1 of 601 epochs",
    ),
    Deviation(
        "promix-rest",
        ("promix",),
        CIFAR,
        "The weight of samples that are left becomes 0 in the authors' code once its ramp is over, by a condition that "
        "always holds; in fastnoise it stays.",
        "the paper gives it a ramp; --rest-until 100 does as the authors' code.",
        "rest_until",
        100,
        size="90 of 601 epochs learn from them there, 590 of 600 here",
    ),
    Deviation(
        "promix-views",
        ("promix",),
        CIFAR,
        "The authors change the strong view by 3 operations of their RandAugment and a hole, before flip and crop; "
        "fastnoise by 3 of torchvision's of medium magnitude, after them.",
        "a loader has one RandAugment and one order.",
        "augment",
        "randaugment:3 of its own, flip, crop",
        uncounted="the operations differ, and so do the images.",
    ),
    Deviation(
        "promix-penalty",
        ("promix",),
        (),
        "In the authors' confidence penalty logits below 1e-12 are clamped before the logarithm of the softmax; "
        "fastnoise's has p log p.",
        "the paper takes the negative entropy.",
        kinds=("asymmetric", "pair"),
        size="5 of 10 logits evenly from -1 to 1 have no gradient through the logarithm there",
    ),
    Deviation(
        "promix-empty",
        ("promix",),
        (),
        "In the authors' code the mean predictions are NaN for good after a batch without learnt samples, or without "
        "others; in fastnoise they stay as they are.",
        "a loss must be finite.",
        size="NaN there, a loss of 0 and the same means here",
    ),
    Deviation(
        "promix-forwarded",
        ("promix",),
        (),
        "The authors send mixtures of learnt samples through the network; fastnoise the other samples too, unmixed, "
        "which count in batch norm's statistics alone.",
        "a step that is compiled or captured has batches of one size.",
        uncounted="it goes with the share of samples that are learnt.",
    ),
    Deviation(
        "promix-new-optimizer",
        ("promix",),
        (),
        "The authors' SGD goes on after the warm-up; fastnoise's begins anew, since the pseudo heads have no momenta.",
        "PyTorch's fused SGD takes no parameters with and without momenta together.",
        size="4.6 % of an epoch of 195 steps are lost under a constant gradient",
    ),
    # -- AugDesc
    Deviation(
        "augdesc-pair",
        ("augdesc",),
        CIFAR,
        "The second equalize of the 17th pair of the authors' AutoAugment has probability .6; fastnoise's .8, as in "
        "SSR's code.",
        "one table for each policy.",
        size="1 of 25 pairs",
    ),
    Deviation(
        "augdesc-guesses",
        ("augdesc", "dividemix", "c2d", "swce_dividemix"),
        (),
        "The other network guesses in evaluation mode there, and every part of a batch is sent by itself; here both "
        "guess in training mode, for all parts at once.",
        "a step is one graph, and batch norm sees the whole batch.",
        uncounted="running and batch statistics differ after trainings alone.",
    ),
)
