import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from synth_ct.kit.schedule import Rate, average_decay, averaged, rate_factor


def factors_of(scheduler: type[LRScheduler], **options: float) -> list[float]:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = scheduler(optimiser, **options)
    factors = []
    for _ in range(20):
        factors += schedule.get_last_lr()
        optimiser.step()
        schedule.step()
    return factors


def test_the_cosine_is_torchs() -> None:
    ours = [rate_factor(Rate(shape="cosine", final=0.1), step, 20) for step in range(20)]
    assert ours == pytest.approx(factors_of(CosineAnnealingLR, T_max=20, eta_min=0.1))


def test_the_linear_decay_is_torchs() -> None:
    ours = [rate_factor(Rate(shape="linear", final=0.2), step, 20) for step in range(20)]
    reference = factors_of(LinearLR, start_factor=1.0, end_factor=0.2, total_iters=20)
    assert ours == pytest.approx(reference)


@pytest.mark.parametrize("shape", ["constant", "cosine", "linear"])
def test_the_warm_up_rises_evenly_to_the_peak(shape: str) -> None:
    rate = Rate.model_validate({"shape": shape, "warmup_steps": 4})
    rising = [rate_factor(rate, step, 20) for step in range(5)]
    assert rising == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_a_constant_rate_stays_at_its_peak() -> None:
    rate = Rate(warmup_steps=2)
    assert {rate_factor(rate, step, 50) for step in range(2, 50)} == {1.0}


def test_a_run_that_is_all_warm_up_has_a_rate() -> None:
    assert rate_factor(Rate(shape="cosine", warmup_steps=3), 2, 3) == 1.0


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="warmup"):
        Rate.model_validate({"warmup": 3})


def test_a_young_average_follows_quickly_and_an_old_one_slowly() -> None:
    assert average_decay(0.999, 0) == 0.1
    assert average_decay(0.999, 90) == pytest.approx(0.91)
    assert average_decay(0.999, 10**6) == 0.999


def test_the_average_is_torchs(random: torch.Generator) -> None:
    values = torch.randn(8, 3, generator=random)
    model = nn.Linear(3, 1, bias=False)
    reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average = values[0]
    for value in values:
        with torch.no_grad():
            model.weight.copy_(value[None])
        reference.update_parameters(model)
        average = averaged(average, value, 0.9)
    torch.testing.assert_close(average[None], reference.module.weight)


def test_averaging_leaves_its_inputs_alone_and_takes_counters_as_they_are() -> None:
    old, new = torch.zeros(2), torch.ones(2)
    assert averaged(old, new, 0.75).tolist() == [0.25, 0.25]
    assert (old == 0).all()
    assert (new == 1).all()
    assert averaged(torch.tensor(3), torch.tensor(7), 0.999).item() == 7
