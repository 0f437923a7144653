"""The U-Net against its paper and against the network whose published weights it can take."""

import torch
from pretrain_tiny import UNET

from pretrain.backbones import UNetSizes, build
from pretrain.unet import genesis_key
from synth_ct.kit.recipe import changed


def convolutions_of_genesis() -> dict[str, tuple[int, int]]:
    """Name -> channels before and after, of each 3^3 convolution in the published network."""
    layers = {}
    for tr, before, middle, after in [
        ("down_tr64", 1, 32, 64),
        ("down_tr128", 64, 64, 128),
        ("down_tr256", 128, 128, 256),
        ("down_tr512", 256, 256, 512),
        ("up_tr256", 512 + 256, 256, 256),
        ("up_tr128", 256 + 128, 128, 128),
        ("up_tr64", 128 + 64, 64, 64),
    ]:
        layers[f"{tr}.ops.0"] = (before, middle)
        layers[f"{tr}.ops.1"] = (middle, after)
    return layers


def shapes_of_genesis(classes: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (before, after) in convolutions_of_genesis().items():
        shapes[f"{name}.conv1.weight"] = (after, before, 3, 3, 3)
        shapes[f"{name}.conv1.bias"] = (after,)
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn1.{tensor}"] = (after,)
        shapes[f"{name}.bn1.num_batches_tracked"] = ()
    for width in (64, 128, 256):
        shapes[f"up_tr{width}.up_conv.weight"] = (2 * width, 2 * width, 2, 2, 2)
        shapes[f"up_tr{width}.up_conv.bias"] = (2 * width,)
    shapes["out_tr.final_conv.weight"] = (classes, 64, 1, 1, 1)
    shapes["out_tr.final_conv.bias"] = (classes,)
    return shapes


def test_each_tensor_has_its_name_and_shape_in_the_published_network() -> None:
    ours = build(UNetSizes(), 1, 0).state_dict()
    named = {genesis_key(key): tuple(tensor.shape) for key, tensor in ours.items()}
    assert len(named) == len(ours)
    assert named == shapes_of_genesis(classes=1)
    assert round(sum(tensor.numel() for tensor in ours.values()) / 1e6, 2) == 19.08


def test_the_paper_counts_the_same_convolutions() -> None:
    """19,069,955: three channels in and out, no biases in up-convolutions, norms not counted."""
    named = build(changed(UNetSizes(), in_channels=3), 3, 0).named_parameters()
    counted = [t for n, t in named if ".norm." not in n and not n.endswith(".up.bias")]
    assert sum(tensor.numel() for tensor in counted) == 19_069_955


def test_a_skip_carries_what_pooling_drops(random: torch.Generator) -> None:
    """The larger of eight voxels survives pooling; the other seven reach the output regardless."""
    unet = build(UNET, 1, 0).eval()
    ct_B1XYZ = torch.rand((2, 1, 16, 16, 16), generator=random).requires_grad_()
    unet(ct_B1XYZ).sum().backward()
    assert ct_B1XYZ.grad is not None
    assert (ct_B1XYZ.grad != 0).float().mean() > 0.99


def test_with_instance_norm_a_sample_does_not_depend_on_the_others(
    random: torch.Generator,
) -> None:
    ct_B1XYZ = torch.rand((3, 1, 16, 16, 16), generator=random)
    with torch.no_grad():
        for norm, alone in (("instance", True), ("batch", False)):
            unet = build(changed(UNET, norm=norm), 1, 0)
            two, three = unet(ct_B1XYZ[:2]), unet(ct_B1XYZ)[:2]
            assert torch.allclose(two, three, atol=1e-5) is alone
