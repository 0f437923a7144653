"""Blocks: sizes kept, skip only where channels change, items apart."""

import pytest
import torch

from synth_ct.models.blocks import ResidualBlock, group_norm


@pytest.mark.parametrize("dims", [2, 3])
def test_a_residual_block_keeps_the_size_and_changes_the_channels(dims: int) -> None:
    block = ResidualBlock(dims, 8, 16)  # type: ignore[arg-type]
    x = torch.randn(2, 8, *(5, 6, 7)[:dims])
    assert block(x).shape == (2, 16, *(5, 6, 7)[:dims])


def test_the_skip_carries_the_input_through_unchanged() -> None:
    block = ResidualBlock(3, 8, 8)
    with torch.no_grad():
        for parameter in block.conv2.parameters():
            parameter.zero_()
    x = torch.randn(2, 8, 4, 4, 4)
    assert torch.equal(block(x), x)


def test_an_item_does_not_depend_on_its_companions() -> None:
    block = ResidualBlock(2, 8, 16)
    x = torch.randn(3, 8, 6, 6)
    torch.testing.assert_close(block(x)[1:2], block(x[1:2]))


def test_group_norm_takes_each_group_to_zero_mean_and_unit_variance() -> None:
    out = group_norm(8, groups=2)(5 + 3 * torch.randn(2, 8, 6, 6)).reshape(2, 2, -1)
    torch.testing.assert_close(out.mean(-1), torch.zeros(2, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(-1, correction=0), torch.ones(2, 2), atol=1e-4, rtol=0)
