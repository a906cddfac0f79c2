"""SSR and SSR+ against their authors' code written out in plain PyTorch, their streams of samples, and collapses."""

from copy import deepcopy
from typing import Any

import _trial_cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnoise.config import OptimConfig
from fastnoise.errors import ConfigError, DataError
from fastnoise.methods import Run, Setting
from fastnoise.methods.mixup import mates
from fastnoise.recipes import recipe
from fastnoise.selection import neighbour_votes, neighbours

N, C, PART = 100, 5, 8


class Trial(_trial_cases.Trial):
    """30 % noise, and batches of three parts."""

    def __init__(self, name: str, setting: dict[str, Any] | None = None, **options: Any):
        options = {"neighbours": 15, "relabel_threshold": 0.4, **options}
        super().__init__(name, options, N, C, 3 * PART, momentum=0.9, setting=setting)


# -- the authors' code: main_cifar.py and utils/funcs.py ----------------------------------------------------------


class Authors:
    """Their modules, with the weights of a trial's network."""

    def __init__(self, trial: Trial):
        self.encoder = deepcopy(trial.network.backbone)
        self.classifier = deepcopy(trial.network.classifier)
        width = trial.network.backbone.num_features
        self.proj_head, self.pred_head = (
            nn.Sequential(nn.Linear(inputs, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 128))
            for inputs in (width, 128)
        )
        self.lambda_fc = 0.0
        if trial.method.name == "ssr_plus":
            self.lambda_fc = trial.method.settings.consistency
            # Their first layers have a bias, which batch norm takes away: it has no gradient.
            self.proj_head.load_state_dict(trial.network.projector.state_dict(), strict=False)
            self.pred_head.load_state_dict(trial.network.predictor.state_dict(), strict=False)
        self.modules = nn.ModuleList([self.encoder, self.classifier, self.proj_head, self.pred_head])
        self.optimizer = torch.optim.SGD(self.modules.parameters(), 0.05, momentum=0.9)

    @torch.no_grad()
    def evaluate(self, images: Tensor, noisy: Tensor, theta_r: float, k: int) -> tuple[Tensor, Tensor]:
        """The labels after relabelling, and which samples are clean with theta_s = 1."""
        self.modules.eval()
        feature = F.normalize(self.encoder(images), dim=1)
        score, label = torch.softmax(self.classifier(self.encoder(images)), dim=1).max(1)
        modified = noisy.clone()
        for sample in range(len(images)):
            if score[sample] > theta_r:
                modified[sample] = label[sample]
        num_class = torch.tensor([torch.sum(modified == c).item() for c in range(C)]) + 1e-10
        pi = num_class / num_class.sum()
        clean = torch.zeros(len(images), dtype=torch.bool)
        for sample in range(len(images)):
            near = torch.mv(feature, feature[sample]).argsort(descending=True)[:k]
            votes = torch.tensor([(modified[near] == c).sum() / k for c in range(C)]) / pi
            votes = votes / votes.sum()
            clean[sample] = votes[modified[sample]] / votes.max() >= 1.0
        self.modules.train()
        return modified, clean

    def train(self, x: tuple[Tensor, Tensor], labels: Tensor, u: tuple[Tensor, Tensor], l: float, idx: Tensor) -> float:  # noqa: E741
        targets = torch.zeros(len(labels), C).scatter_(1, labels.view(-1, 1), 1)
        inputs, targets = torch.cat(x), torch.cat([targets, targets])
        logits = self.classifier(self.encoder(l * inputs + (1 - l) * inputs[idx]))
        mixed = l * targets + (1 - l) * targets[idx]
        loss = -torch.mean(torch.sum(F.log_softmax(logits, dim=1) * mixed, dim=1))
        feats_u1 = self.encoder(u[0])
        feats_u2 = self.encoder(u[1])
        z1, z2 = self.proj_head(feats_u1), self.proj_head(feats_u2)
        _, p2 = self.pred_head(z1), self.pred_head(z2)
        loss = loss - self.lambda_fc * F.cosine_similarity(p2, z1.detach(), dim=-1).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def flat(module: nn.Module, kind: str, without: tuple[str, ...]) -> Tensor:
    """All parameters or buffers, but those of some names."""
    named = getattr(module, f"named_{kind}")()
    values = [value.detach().float().flatten() for name, value in named if name not in without]
    return torch.cat([torch.zeros(0), *values])


@pytest.mark.parametrize(("name", "options"), [("ssr", {}), ("ssr_plus", {}), ("ssr_plus", {"consistency": 0.4})])
def test_follows_the_authors_code(name: str, options: dict[str, float]) -> None:
    """Labels, selection, losses and weights over two epochs."""
    trial = Trial(name, **options)
    authors = Authors(trial)
    start = {module: deepcopy(module) for module in authors.modules}
    changed = 0
    for epoch in (1, 2, 3):
        trial.end(epoch - 1)
        modified, clean = authors.evaluate(trial.images, trial.given, 0.4, 15)
        # Once weights have moved, rounding may turn a probability at the threshold or two equally far neighbours over.
        most = 0 if epoch == 1 else 2
        assert (trial.labels != modified).sum() <= most
        assert (trial.method.selected != clean).sum() <= most
        assert torch.equal(trial.method.relabelled, trial.labels)
        assert 0 < clean.sum() < N
        changed += int((modified != trial.given).sum())
        if epoch == 3:
            break
        batches = trial.batches(epoch)
        assert len(batches) == N // PART
        for number, images, index in batches:
            loss = trial.update(epoch, number, images, index).loss
            weak, strong = images[: 3 * PART], images[3 * PART :]
            labelled, again, everyone = torch.arange(3 * PART).split(PART)
            assert torch.equal(index[labelled], index[again])
            a, b = trial.method.pairing.tolist()
            expected = authors.train(
                (strong[labelled], strong[again]),
                trial.labels[index[labelled]],
                (weak[everyone], strong[everyone]),
                float(trial.method.mixup.share),
                torch.tensor([(a * place + b) % (2 * PART) for place in range(2 * PART)]),
            )
            assert loss.item() == pytest.approx(expected, rel=2e-3)  # ReLU makes more of rounding, step by step
    assert changed > 10
    pairs = [(trial.network.backbone, authors.encoder), (trial.network.classifier, authors.classifier)]
    heads = [authors.proj_head, authors.pred_head]
    if name == "ssr_plus":
        pairs += [(trial.network.projector, authors.proj_head), (trial.network.predictor, authors.pred_head)]
    for mine, theirs in pairs:
        # Running statistics too, but those of the predictor, which the authors move by weak views as well.
        for kind in ("parameters",) if theirs is authors.pred_head else ("parameters", "buffers"):
            ours, expected, before = (
                flat(module, kind, ("0.bias", "1.running_mean") if theirs in heads else ())
                for module in (mine, theirs, start[theirs])
            )
            way = torch.linalg.vector_norm(expected - before)
            assert torch.linalg.vector_norm(ours - expected) <= 0.01 * way, (kind, way)


# -- streams ------------------------------------------------------------------------------------------------------


def test_a_batch_has_both_streams_and_classes_are_alike() -> None:
    trial = Trial("ssr")
    trial.end(0)
    method = trial.method
    sizes = np.array([21, 7, 10, 0, 1])
    method.selected.fill_(False)
    method.selected[: sizes.sum()] = True
    method.relabelled[: sizes.sum()] = torch.from_numpy(np.repeat(np.arange(C), sizes))
    order = method.order(3, 7)
    assert len(order) == N // PART * 3 * PART
    labelled, again, everyone = (part.ravel() for part in np.split(order.reshape(-1, 3, PART), 3, axis=1))
    assert np.array_equal(labelled, again)
    assert len(set(everyone)) == len(everyone) == 96, "each sample once, but for a rest"
    assert method.selected[torch.from_numpy(labelled)].all()
    # the first time round all classes have 21: 7 three times, 10 twice and one of them once more, 1 on its own
    first = np.bincount(labelled[: 4 * 21], minlength=N)
    counts = [sorted(part.tolist()) for part in np.split(first[: sizes.sum()], np.cumsum(sizes)[:-1])]
    assert counts == [[1] * 21, [3] * 7, [2] * 9 + [3], [], [21]]
    assert np.array_equal(method.order(3, 7), order)
    assert not np.array_equal(method.order(4, 7), order)


def test_an_epoch_of_some_batches_judges_its_own_samples() -> None:
    trial = Trial("ssr", {"epoch_batches": 3})
    evaluated = trial.evaluate()
    seen: list[np.ndarray | None] = []

    def scan(of: Any, *, samples: np.ndarray | None = None) -> Any:
        seen.append(samples)
        return of(evaluated, torch.arange(N))

    def end(epoch: int) -> None:
        trial.method.end_epoch(Run(epoch, 2, 7, [trial.network], trial.given, trial.labels, scan, print))  # type: ignore[arg-type]

    end(0)
    (drawn,) = seen
    assert drawn is not None
    assert len(drawn) == 3 * PART
    votes = neighbour_votes(evaluated[0].features[drawn], trial.labels[drawn], C, 15)  # type: ignore[index]
    scores = votes / torch.bincount(trial.labels[drawn], minlength=C)
    agreed = scores.gather(1, trial.labels[drawn, None]).squeeze(1) >= scores.amax(1) * (1 - 1e-6)
    expected = torch.zeros(N, dtype=torch.bool)
    expected[torch.from_numpy(drawn)] = agreed
    assert torch.equal(trial.method.selected, expected)
    assert trial.method.report() == {"selected": int(agreed.sum()) / len(drawn)}
    order = trial.method.order(1, 7)
    assert sorted(order.reshape(-1, 3, PART)[:, 2].ravel()) == sorted(drawn)
    assert set(order) <= set(drawn)
    end(2)
    assert seen[-1] is None, "all samples, for the estimates"


# -- what a run has found out -------------------------------------------------------------------------------------


def test_estimates_are_those_of_the_last_judgement() -> None:
    trial = Trial("ssr", neighbours=15)
    assert torch.equal(trial.method.corrected(trial.given), trial.given), "before the first"
    trial.train(3)
    run = trial.end(3, 3)
    probs = trial.evaluate()[0].logits.softmax(1)
    found = trial.method.estimates(run)
    selected, labels = trial.method.selected, trial.method.relabelled
    assert torch.equal(found.labels, torch.where(selected, labels, probs.argmax(1)))
    assert torch.equal(found.suspected, ~selected | (labels != trial.given))
    torch.testing.assert_close(found.confidence, probs[range(N), trial.given])
    (chosen,) = trial.method.selections().values()
    assert torch.equal(chosen.members, selected)
    assert chosen.labels is not None
    assert torch.equal(chosen.labels, labels)


@pytest.mark.parametrize("collapse", ["none", "one"])
def test_learns_given_labels_if_nothing_is_left_to_select(collapse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial("ssr")
    agreed = torch.zeros(N)
    if collapse == "one":
        agreed[trial.given == 3] = 1
    monkeypatch.setattr(trial.method, "agreement", lambda features, labels: agreed)
    trial.end(2)
    what = "no sample is selected" if collapse == "none" else "only samples of class 3 are selected"
    assert trial.warnings == [f"ssr, epoch 2: {what}; the next epoch learns the given labels of all samples"]
    assert trial.method.selected.all()
    assert torch.equal(trial.labels, trial.given)
    assert len(trial.method.order(3, 7)) == N // PART * 3 * PART


@pytest.mark.parametrize("size", [4, 16, 17, 300])
def test_batches_of_any_size_are_cut(size: int) -> None:
    """The third part has what is left over, and an epoch of few samples is one batch."""
    trial = Trial("ssr_plus")
    trial.method.configure(Setting(OptimConfig(), (), (), size))
    trial.end(0)
    part, rest = size // 3, size - 2 * (size // 3)
    order = trial.method.order(1, 7).reshape(-1, size)
    assert len(order) == max(1, N // rest)
    assert np.array_equal(order[:, :part], order[:, part : 2 * part])
    assert np.bincount(order[:, 2 * part :].ravel(), minlength=N).max() <= 1
    index = torch.from_numpy(order[0])
    trial.method.before_step(1, 0, 7)
    assert sorted(mates(trial.method.pairing, 2 * part).tolist()) == list(range(2 * part))
    result = trial.method.training_step(
        [trial.network], trial.images[index].repeat(2, 1, 1, 1), trial.labels[index], index
    )
    assert result.predictions.shape == (size,)
    assert torch.isfinite(result.loss)


def test_refuses_batches_that_it_cannot_cut() -> None:
    trial = Trial("ssr_plus")
    with pytest.raises(
        ConfigError, match="ssr_plus cuts batches into three parts: --batch-size must be at least 4, not 3"
    ):
        trial.method.configure(Setting(OptimConfig(), (), (), 3))


# -- the step -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "amp"), [("ssr", True), ("ssr_plus", False)])
def test_a_step_is_one_graph(name: str, amp: bool) -> None:
    """Compiled without breaks, a step equals the eager one: loss, predictions, gradients, running statistics."""
    torch._dynamo.reset()
    found = []
    for compiled in (False, True):
        trial = Trial(name)
        trial.train(1)
        number, images, index = trial.batches(2)[0]
        trial.method.before_step(2, number, 7)
        step: Any = trial.method.training_step
        if compiled:
            step = torch.compile(step, fullgraph=True, dynamic=False, backend="aot_eager")
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            result = step([trial.network], images.to(memory_format=torch.channels_last), trial.labels[index], index)
        trial.optimizer.zero_grad()
        result.loss.backward()
        assert result.loss.dtype == torch.float32
        gradients = [weight.grad for weight in trial.network.parameters()]
        assert all(gradient is not None and gradient.any() for gradient in gradients)
        found.append((result, gradients, dict(trial.network.named_buffers())))
    (eager, slopes, buffers), (result, others, other_buffers) = found
    tolerance = 0.05 if amp else 1e-4
    torch.testing.assert_close(result.loss, eager.loss, rtol=tolerance, atol=tolerance)
    if not amp:
        assert torch.equal(result.predictions, eager.predictions)
    for first, second in zip(slopes, others, strict=True):
        assert torch.linalg.vector_norm(first - second) <= tolerance * torch.linalg.vector_norm(first) + 1e-4
    for key, value in buffers.items():
        torch.testing.assert_close(other_buffers[key], value, rtol=tolerance, atol=tolerance, msg=key)


def test_gradients_in_half_precision_are_those_in_full() -> None:
    """The step's parts without gradient must not leave rounded weights behind that have none."""
    found = []
    for amp in (False, True):
        trial = Trial("ssr_plus")
        trial.train(1)
        number, images, index = trial.batches(2)[0]
        trial.method.before_step(2, number, 7)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            result = trial.method.training_step([trial.network], images, trial.labels[index], index)
        trial.optimizer.zero_grad()
        result.loss.backward()
        found.append({name: weight.grad for name, weight in trial.network.named_parameters()})
    for name, gradient in found[0].items():
        norm = torch.linalg.vector_norm(gradient)
        assert torch.linalg.vector_norm(found[1][name] - gradient) < 0.25 * norm + 1e-3, name


# -- recipes ------------------------------------------------------------------------------------------------------


def test_published_settings() -> None:
    noises = [f"symmetric:{rate}" for rate in (0.2, 0.5, 0.8, 0.9)]
    thresholds = [recipe("ssr", "cifar100", noise).method.relabel_threshold for noise in noises]
    assert thresholds == [0.9, 0.8, 0.8, 0.8]
    assert recipe("ssr_plus", "cifar100", "none", noise_rate=0.2).method.relabel_threshold == 0.9
    assert {recipe("ssr", "cifar10", noise).method.relabel_threshold for noise in noises} == {0.9}
    config = recipe("ssr_plus", "cifar10", "asymmetric:0.4")
    method = config.method
    assert (method.consistency, method.neighbours, method.select_threshold, method.mixup_alpha) == (1.0, 200, 1.0, 4.0)


# -- neighbours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 1000, 1 << 26])
@pytest.mark.parametrize("k", [1, 7, 60, 61])
def test_neighbours_vote_as_in_a_loop_and_in_scikit_learn(k: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.neighbors import NearestNeighbors

    monkeypatch.setattr(neighbours, "BLOCK", block)
    random = torch.Generator().manual_seed(k)
    features = torch.randn(60, 9, generator=random) * torch.rand(60, 1, generator=random)
    labels = torch.randint(4, (60,), generator=random)
    found = neighbour_votes(features, labels, 5, k)
    expected = torch.zeros(60, 5)
    directions = features / features.square().sum(1, keepdim=True).sqrt()
    for sample in range(60):
        cosines = [float((directions[sample] * other).sum()) for other in directions]
        nearest = sorted(range(60), key=lambda other: -cosines[other])[:k]
        assert sample in nearest
        for other in nearest:
            expected[sample, labels[other]] += 1 / min(k, 60)
    torch.testing.assert_close(found, expected)
    table = NearestNeighbors(n_neighbors=min(k, 60), metric="cosine", algorithm="brute").fit(features.numpy())
    theirs = labels[torch.from_numpy(table.kneighbors(return_distance=True, X=features.numpy())[1])]
    assert torch.equal(found.mul(min(k, 60)).round().long(), F.one_hot(theirs, 5).sum(1))
    assert found.dtype == torch.float32


def test_neighbours_take_half_precision_and_no_direction() -> None:
    features = torch.tensor([[2.0, 0.0], [1.0, 0.1], [0.0, 0.0], [0.0, 3.0]])
    labels = torch.tensor([0, 0, 1, 1])
    votes = neighbour_votes(features.half(), labels, 2, 2)
    assert torch.equal(votes[[0, 1]], torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert torch.isfinite(votes).all()
    assert torch.equal(votes.sum(1), torch.ones(4))


@pytest.mark.parametrize(
    ("features", "labels", "k", "words"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), 1, r"features are \[3\]"),
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), 1, r"labels \[2\]: expected \[N, F\] and \[N\]"),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), 0, "k is 0: a sample needs at least 1 neighbour"),
    ],
)
def test_neighbours_of_what_fits_nothing_are_refused(features: Tensor, labels: Tensor, k: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        neighbour_votes(features, labels, 2, k)
