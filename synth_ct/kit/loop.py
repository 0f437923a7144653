"""The one training loop: mixed precision, accumulation, several processes, averages, exact resume.

A step's batch and randomness depend on the seed, the step and the slot of a micro-batch in the
global batch, on nothing else: not on what was drawn before, and not on how many processes share
the work. So a resumed run repeats the same steps, and two processes take the steps of one.
"""

import math
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn
from torch.optim import Optimizer

from synth_ct.kit import checkpoint, optimiser_state, ranks
from synth_ct.kit.checkpoint import Checkpoints, Saved, Tensors
from synth_ct.kit.recipe import Recipe
from synth_ct.kit.schedule import Rate, average_decay, averaged, rate_factor
from synth_ct.kit.seeds import seed_for, torch_random

Batches = Callable[[int, int], Any]
"""(step, slot) -> the micro-batch there, a pure function, already on the learner's device."""

Log = Callable[[int, dict[str, float]], None]
"""(steps done, values). Called on rank 0; steps after the last checkpoint come again on resume."""

AVERAGES = dict[str, Tensors]
"""Name of a module -> the running average of its weights."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@runtime_checkable
class Learner(Protocol):
    """Anything trainable."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """All that is trained or has running statistics; saved, restored, put in train mode."""

    @property
    def optimisers(self) -> Mapping[str, Optimizer]:
        """One for each phase of a step, in order: a GAN has two."""

    @property
    def averaged(self) -> Sequence[str]:
        """Names of the modules of which a running average is kept."""

    def losses(self, phase: str, batch: Any, generator: torch.Generator, /) -> Mapping[str, Tensor]:
        """Means over the micro-batch; `total` is minimised. Draw from the CPU generator."""


class Training(Recipe):
    """How a learner is trained: everything that changes the weights, whatever the machine."""

    seed: int
    steps: int = Field(gt=0)
    global_batch: int = Field(gt=0)
    """Samples an optimiser step sees, over all processes."""
    micro_batch: int = Field(gt=0)
    """Samples that see one another: the group of batch statistics and negatives."""
    rate: Rate = Rate()
    clip_norm: float | None = Field(default=None, gt=0)
    average_decay: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"

    @model_validator(mode="after")
    def _relations(self) -> "Training":
        if self.global_batch % self.micro_batch:
            raise ValueError(
                f"global_batch {self.global_batch} is no multiple of micro_batch "
                f"{self.micro_batch}; a step takes whole micro-batches"
            )
        if self.rate.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps {self.rate.warmup_steps} is more than steps {self.steps}; "
                "the learning rate would never reach its peak"
            )
        return self


class Diverged(ValueError):
    """A loss or a gradient became NaN or infinite."""


def train(
    learner: Learner, batches: Batches, training: Training, checkpoints: Checkpoints, log: Log
) -> AVERAGES:
    """Train in place from the newest good checkpoint, or from the start; return the averages.

    Seeds torch's global generators at every micro-batch, for dropout. SIGTERM saves, then exits.
    """
    state = _State.fresh(learner, training)
    slots = own_slots(training)
    state.resume(checkpoints)
    ranks.demand_same_start(learner.modules.values(), state.step)
    with _terminated() as terminated:
        for step in range(state.step, training.steps):
            factor = rate_factor(training.rate, step, training.steps)
            _set_rates(learner.optimisers.values(), factor)
            work = [(slot, batches(step, slot)) for slot in slots]
            row = {"rate": factor}
            for phase, optimiser in learner.optimisers.items():
                sums = _accumulate(state, phase, work)
                row |= _descend(state, phase, optimiser, sums)
            state.scaler.update()
            ranks.average_buffers(learner.modules.values())
            state.finish_step()

            if ranks.world()[0] == 0:
                log(state.step, row)
            stop = ranks.any_rank(terminated.is_set(), state.device)
            if stop or state.step % checkpoints.every == 0 or state.step == training.steps:
                state.save(checkpoints)
            if stop:
                raise SystemExit(128 + signal.SIGTERM)
    ranks.wait_for_all()
    return state.averages


def _accumulate(state: "_State", phase: str, work: Sequence[tuple[int, Any]]) -> Tensors:
    """(1 / n) sum_i losses_i over this process's micro-batches; gradients pile up likewise."""
    training, optimisers = state.training, state.learner.optimisers
    optimisers[phase].zero_grad(set_to_none=True)
    sums: Tensors = {}
    for slot, batch in work:
        generator = _seeded(training.seed, phase, state.step, slot)
        with _only_this_learns(phase, optimisers):
            with state.autocast():
                losses = state.learner.losses(phase, batch, generator)
            state.scaler.scale(losses["total"] / len(work)).backward()
        for name, loss in losses.items():
            share = loss.detach().float() / len(work)
            sums[name] = sums[name] + share if name in sums else share
    return sums


def _descend(
    state: "_State", phase: str, optimiser: Optimizer, sums: Mapping[str, Tensor]
) -> dict[str, float]:
    """Agree on the gradient, clip it, take the step unless something is not finite."""
    parameters = _parameters(optimiser)
    ranks.average_gradients(parameters)
    state.scaler.unscale_(optimiser)
    norm = nn.utils.clip_grad_norm_(parameters, state.training.clip_norm or math.inf)
    values = _values(sums, norm)
    _demand_finite(values, phase, state)
    state.scaler.step(optimiser)
    return {f"{phase}/{name}": value for name, value in values.items()}


# ---- the pieces of a step ----------------------------------------------------------------------


def own_slots(training: Training) -> range:
    """The micro-batches of each global batch that fall to this process."""
    return slots_of(training, *ranks.world())


def slots_of(training: Training, rank: int, size: int) -> range:
    """The micro-batches of each global batch that fall to one of `size` processes."""
    micro_batches = training.global_batch // training.micro_batch
    if micro_batches % size:
        raise ValueError(
            f"{micro_batches} micro-batches (global_batch {training.global_batch} / micro_batch "
            f"{training.micro_batch}) cannot be shared evenly by {size} processes; "
            f"use a number of processes that divides {micro_batches}, or another micro_batch"
        )
    share = micro_batches // size
    return range(rank * share, (rank + 1) * share)


def _seeded(seed: int, phase: str, step: int, slot: int) -> torch.Generator:
    where = f"{step}/{slot}"
    torch.manual_seed(seed_for(seed, f"global/{phase}", where))
    return torch_random(seed, f"losses/{phase}", where)


def _parameters(optimiser: Optimizer) -> list[nn.Parameter]:
    return [p for group in optimiser.param_groups for p in group["params"]]


@contextmanager
def _only_this_learns(
    phase: str, optimisers: Mapping[str, Optimizer]
) -> Generator[None, None, None]:
    """Keep the gradients of one phase away from the parameters of the others."""
    mine = {id(p) for p in _parameters(optimisers[phase])}
    others = [p for optimiser in optimisers.values() for p in _parameters(optimiser)]
    resting = [p for p in others if p.requires_grad and id(p) not in mine]
    for parameter in resting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in resting:
            parameter.requires_grad_(True)


def _set_rates(optimisers: Iterable[Optimizer], factor: float) -> None:
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = factor * group["initial_lr"]


def _values(sums: Mapping[str, Tensor], norm: Tensor) -> dict[str, float]:
    """Means over all processes; one transfer from the device for all of them."""
    means = ranks.mean_over_ranks(torch.stack([t.reshape(()) for t in sums.values()]))
    numbers = torch.cat([means, norm.detach().float().reshape(1)]).tolist()
    return dict(zip([*sums, "grad_norm"], numbers, strict=True))


def _demand_finite(values: Mapping[str, float], phase: str, state: "_State") -> None:
    # With a scaler an infinite gradient is a normal event: the step is skipped, the scale halved.
    expected = {"grad_norm"} if state.scaler.is_enabled() else set()
    bad = [n for n, value in values.items() if not math.isfinite(value) and n not in expected]
    if bad:
        names = ", ".join(f"{phase}/{name}" for name in bad)
        raise Diverged(
            f"step {state.step}: {names} not finite; training stopped and the checkpoint before "
            "stands. Look at this step's batch, or train anew with a lower rate or clip_norm"
        )


@contextmanager
def _terminated() -> Generator[threading.Event, None, None]:
    """An event that SIGTERM sets, so that a step in progress can end and be saved."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread may set a signal's handler
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


# ---- what survives -----------------------------------------------------------------------------


class _Rest(Recipe):
    """The part of a checkpoint that is not tensors."""

    step: int = Field(ge=0)
    training: dict[str, Any]
    optimisers: dict[str, optimiser_state.Settings]
    scaler: dict[str, int | float]


@dataclass(slots=True, kw_only=True)
class _State:
    """All that a resumed run must find again."""

    learner: Learner
    training: Training
    averages: AVERAGES
    scaler: torch.amp.GradScaler
    device: torch.device
    step: int = 0
    """Steps done."""

    @classmethod
    def fresh(cls, learner: Learner, training: Training) -> "_State":
        for optimiser in learner.optimisers.values():
            for group in optimiser.param_groups:
                group.setdefault("initial_lr", group["lr"])
        for module in learner.modules.values():
            module.train()
        device = next(p.device for m in learner.modules.values() for p in m.parameters())
        half = training.precision == "float16"
        if half and device.type != "cuda":
            raise ValueError(f"float16 trains only on a GPU, not on {device}; choose bfloat16")
        return cls(
            learner=learner,
            training=training,
            averages={name: _copy(learner.modules[name]) for name in learner.averaged},
            scaler=torch.amp.GradScaler(device.type, enabled=half),
            device=device,
        )

    def autocast(self) -> torch.autocast:
        dtype = DTYPES[self.training.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def finish_step(self) -> None:
        decay = average_decay(self.training.average_decay, self.step)
        for name, average in self.averages.items():
            for key, value in self.learner.modules[name].state_dict().items():
                average[key] = averaged(average[key], value, decay)
        self.step += 1

    def save(self, checkpoints: Checkpoints) -> None:
        if ranks.world()[0] != 0:
            return
        tensors: Tensors = {}
        for name, module in self.learner.modules.items():
            tensors |= checkpoint.prefixed(f"modules/{name}", module.state_dict())
        for name, average in self.averages.items():
            tensors |= checkpoint.prefixed(f"averages/{name}", average)
        settings = {}
        for phase, optimiser in self.learner.optimisers.items():
            moments, settings[phase] = optimiser_state.pack(optimiser)
            tensors |= checkpoint.prefixed(f"optimisers/{phase}", moments)
        rest = _Rest(
            step=self.step,
            training=self.training.model_dump(mode="json"),
            optimisers=settings,
            scaler=self.scaler.state_dict(),
        )
        checkpoints.save(self.step, tensors, rest.model_dump(mode="json"))

    def resume(self, checkpoints: Checkpoints) -> None:
        saved = checkpoints.newest_good()
        if saved is None:
            return
        rest = self._fitting(saved)
        for name, module in self.learner.modules.items():
            checkpoint.load_module(module, saved.below(f"modules/{name}"), saved.where)
        for name, average in self.averages.items():
            found = saved.below(f"averages/{name}")
            checkpoint.demand_fit(found, average, saved.where)
            self.averages[name] = {k: v.to(average[k].device) for k, v in found.items()}
        for phase, optimiser in self.learner.optimisers.items():
            moments = saved.below(f"optimisers/{phase}")
            optimiser_state.unpack(optimiser, moments, rest.optimisers[phase], saved.where)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(rest.scaler)
        self.step = rest.step

    def _fitting(self, saved: Saved) -> _Rest:
        """The rest, once recipe, modules, averages and phases are the ones asked for."""
        try:
            rest = _Rest.model_validate(saved.rest)
        except ValidationError as error:
            checkpoint.misfit(saved.where / checkpoint.REST, str(error))
        asked = self.training.model_dump(mode="json")
        other = [n for n in asked.keys() | rest.training if asked.get(n) != rest.training.get(n)]
        if other:
            checkpoint.misfit(saved.where, f"fields that differ: {', '.join(sorted(other))}")
        ours = {f"modules/{name}" for name in self.learner.modules}
        ours |= {f"averages/{name}" for name in self.averages}
        ours |= {f"optimisers/{phase}" for phase in self.learner.optimisers}
        strange = sorted(n for n in saved.tensors if "/".join(n.split("/")[:2]) not in ours)
        if strange or rest.optimisers.keys() != self.learner.optimisers.keys():
            checkpoint.misfit(saved.where, f"not known here: {', '.join(strange[:5]) or 'phases'}")
        return rest


def _copy(module: nn.Module) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
