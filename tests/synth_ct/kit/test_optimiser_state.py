from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from synth_ct.kit.checkpoint import read, write
from synth_ct.kit.optimiser_state import pack, unpack
from synth_ct.kit.quarantine import Refused


def stepped(optimiser: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        for group in optimiser.param_groups:
            for i, parameter in enumerate(group["params"][:-1]):  # the last one never moves
                parameter.grad = torch.full_like(parameter, 0.1 * (i + step + 1))
        optimiser.step()


OPTIMISERS: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "adamw": lambda p: torch.optim.AdamW([{"params": p[:2]}, {"params": p[2:], "lr": 0.1}]),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "sgd without momentum": lambda p: torch.optim.SGD(p, lr=0.1),
}


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_an_optimiser_goes_on_exactly_where_it_was(kind: str, tmp_path: Path) -> None:
    def made() -> tuple[list[Tensor], torch.optim.Optimizer]:
        parameters: list[Tensor] = [nn.Parameter(torch.ones(n, 2)) for n in (1, 2, 3, 4)]
        return parameters, OPTIMISERS[kind](parameters)

    values, optimiser = made()
    stepped(optimiser, 3)
    tensors, settings = pack(optimiser)
    write(tmp_path / "c", tensors, settings.model_dump(mode="json"))
    saved = read(tmp_path / "c")

    others, fresh = made()
    for other, value in zip(others, values, strict=True):
        other.data.copy_(value.data)
    unpack(fresh, saved.tensors, type(settings).model_validate(saved.rest), tmp_path)
    stepped(optimiser, 3)
    stepped(fresh, 3)
    assert all(torch.equal(a, b) for a, b in zip(others, values, strict=True))
    assert fresh.state_dict()["param_groups"] == optimiser.state_dict()["param_groups"]


def test_moments_of_another_shape_are_refused() -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    optimiser = torch.optim.Adam([parameter])
    parameter.grad = torch.ones(2, 2)
    optimiser.step()
    tensors, settings = pack(optimiser)
    tensors["0/exp_avg"] = torch.zeros(2, 3)
    fresh = torch.optim.Adam([nn.Parameter(torch.ones(2, 2))])
    with pytest.raises(Refused, match=r"0/exp_avg is float32\[2, 3\] instead of float32\[2, 2\]"):
        unpack(fresh, tensors, settings, Path("c"))
    assert not fresh.state


def test_an_optimiser_whose_moments_are_not_known_is_refused() -> None:
    parameters = [nn.Parameter(torch.ones(1))]
    for optimiser in (torch.optim.Rprop(parameters), torch.optim.Adam(parameters, amsgrad=True)):
        with pytest.raises(ValueError, match="cannot be resumed exactly"):
            pack(optimiser)
