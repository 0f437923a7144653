"""Dice plus cross-entropy in full precision; no step of `tiny` takes the slow convolution."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from finetune.crops import Batch
from finetune.learner import NETWORK, PHASE, SegmentationLearner
from finetune.predict import slide
from finetune.stage import Finetuning
from pretrain.backbones import Backbone, build
from pretrain.learner import PHASE as PRETRAIN
from pretrain.learner import PretrainLearner
from pretrain.objectives import build_objective, out_channels
from pretrain.stage import Network
from ray_jobs.finetuning import tiny_folds
from ray_jobs.pretraining import tiny_pretraining
from synth_ct.kit.loop import Learner

CLASSES, SHAPE = 4, (6, 5, 7)
SLOW, FAST = "aten::slow_conv3d_forward", "aten::mkldnn_convolution"


class Answers(nn.Module):
    """The same logits whatever it is shown, in some precision."""

    def __init__(self, logits_BKXYZ: Tensor, kind: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.logits_BKXYZ, self.kind = nn.Parameter(logits_BKXYZ), kind

    def forward(self, ct_B1XYZ: Tensor) -> Tensor:
        return self.logits_BKXYZ.to(self.kind)


def batch(random: torch.Generator, absent: int = 0) -> Batch:
    """Labels of all classes but the last `absent` ones."""
    label_BXYZ = torch.randint(CLASSES - absent, (2, *SHAPE), generator=random).byte()
    return Batch(torch.zeros(2, 1, *SHAPE), label_BXYZ)


def learner_of(network: nn.Module) -> SegmentationLearner:
    return SegmentationLearner(network, [], (1e-3, 1e-3), 0.0)


def loss(network: nn.Module, crops: Batch) -> Tensor:
    return learner_of(network).losses(PHASE, crops, torch.Generator())["total"]


def dice_and_entropy(logits_BKXYZ: Tensor, label_BXYZ: Tensor) -> Tensor:
    """mean_BK(1 - 2 |p y| / (|p| + |y|)) + CE, in float64."""
    y_BKXYZ = F.one_hot(label_BXYZ.long(), CLASSES).movedim(-1, 1)
    p_BKXYZ = logits_BKXYZ.double().softmax(1)
    shared_BK, sum_BK = (each.sum((2, 3, 4)) for each in (p_BKXYZ * y_BKXYZ, p_BKXYZ + y_BKXYZ))
    entropy = F.cross_entropy(logits_BKXYZ.double(), label_BXYZ.long())
    return (1 - 2 * shared_BK / sum_BK).mean() + entropy


@pytest.mark.parametrize("absent", [0, 1])
def test_the_loss_is_dice_plus_cross_entropy_background_included(
    random: torch.Generator, absent: int
) -> None:
    logits_BKXYZ = 3 * torch.randn(2, CLASSES, *SHAPE, generator=random)
    crops = batch(random, absent)
    expected = dice_and_entropy(logits_BKXYZ, crops.label_BXYZ)
    torch.testing.assert_close(loss(Answers(logits_BKXYZ), crops), expected.float())


def test_the_right_answer_costs_nothing(random: torch.Generator) -> None:
    crops = batch(random)
    right_BKXYZ = 50 * F.one_hot(crops.label_BXYZ.long(), CLASSES).movedim(-1, 1).float()
    assert loss(Answers(right_BKXYZ), crops) < 1e-5
    assert loss(Answers(right_BKXYZ.roll(1, dims=1)), crops) > 1


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_logits_of_half_precision_are_scored_in_full(
    random: torch.Generator, kind: torch.dtype
) -> None:
    logits_BKXYZ = 3 * torch.randn(2, CLASSES, *SHAPE, generator=random)
    crops = batch(random)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(Answers(logits_BKXYZ, kind), crops)
    assert found.dtype == torch.float32
    expected = dice_and_entropy(logits_BKXYZ.to(kind), crops.label_BXYZ)
    torch.testing.assert_close(found, expected.float())


def test_it_is_a_learner_of_one_network_whose_weights_are_kept(random: torch.Generator) -> None:
    network = Answers(torch.zeros(2, CLASSES, *SHAPE))
    learner = learner_of(network)
    assert isinstance(learner, Learner)
    assert learner.modules == {NETWORK: network}
    assert list(learner.averaged) == [NETWORK]
    crops, losses = batch(random), []
    for _ in range(3):
        total = learner.losses(PHASE, crops, random)["total"]
        learner.optimisers[PHASE].zero_grad()
        total.backward()
        learner.optimisers[PHASE].step()
        losses.append(total.item())
    assert losses[0] > losses[1] > losses[2]


def test_a_rate_of_its_own_reaches_only_what_arrived() -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 1), nn.Conv3d(2, 2, 1))
    learner = SegmentationLearner(network, ["0.weight", "0.bias"], (1e-2, 1e-3), 0.25)
    new, old = learner.optimisers[PHASE].param_groups
    assert (new["lr"], old["lr"], new["weight_decay"], old["weight_decay"]) == (
        *(1e-2, 1e-3),
        *(0.25, 0.25),
    )
    assert {id(p) for p in old["params"]} == {id(p) for p in network[0].parameters()}
    assert {id(p) for p in new["params"]} == {id(p) for p in network[1].parameters()}
    untouched = SegmentationLearner(network, [], (1e-2, 1e-3), 0.0)
    assert [len(group["params"]) for group in untouched.optimisers[PHASE].param_groups] == [4]


# ---- speed on a processor ----------------------------------------------------------------------


def convolved(work: Callable[[], object]) -> dict[str, set[tuple[int, ...]]]:
    """Sides of the kernels that went each way."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as seen:
        work()
    return {
        name: {tuple(e.input_shapes[1][2:]) for e in seen.events() if e.name == name}
        for name in (SLOW, FAST)
    }


def pretraining_step(network: Network) -> None:
    backbone = build(network.backbone, out_channels(network.objective), 0)
    heads = build_objective(network.objective, backbone, network.crop, 0)
    learner = PretrainLearner(backbone, heads, 1e-3, 0.0)
    count = network.training.micro_batch
    ct_B1XYZ = torch.rand(count, 1, *network.crop)
    learner.losses(PRETRAIN, ct_B1XYZ, torch.Generator())["total"].backward()


def fit_step(backbone: Backbone, how: Finetuning) -> None:
    """A step, and a case of a single window."""
    count, sides = how.training.micro_batch, how.crop.sides
    crops = Batch(torch.rand(count, 1, *sides), torch.ones(count, *sides, dtype=torch.uint8))
    loss(backbone, crops).backward()
    with torch.inference_mode():
        slide(backbone, torch.rand(sides).numpy(), sides, how.inference, torch.device("cpu"))


@pytest.mark.parametrize("name", ["swin", "unet"])
def test_no_step_of_tiny_takes_the_slow_convolution(name: str) -> None:
    """But for kernels of one voxel, where it is a product of matrices, and the faster."""
    network = tiny_pretraining().networks[name]
    how = tiny_folds().networks[name]
    receiver = build(network.backbone, CLASSES, 0)
    tasks: list[Callable[[], Any]] = [
        lambda: pretraining_step(network),
        lambda: fit_step(receiver, how),
    ]
    for work in tasks:
        kernels = convolved(work)
        assert (3, 3, 3) in kernels[FAST]
        assert kernels[SLOW] <= {(1, 1, 1)}
