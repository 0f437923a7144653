"""An optimiser's moments as named tensors and its settings as JSON, and back, exactly."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from synth_ct.kit.checkpoint import Tensors, demand_fit, misfit
from synth_ct.kit.recipe import Recipe

MOMENTS: dict[str, frozenset[str]] = {
    "Adam": frozenset({"step", "exp_avg", "exp_avg_sq"}),
    "AdamW": frozenset({"step", "exp_avg", "exp_avg_sq"}),
    "SGD": frozenset({"momentum_buffer"}),
}
"""What each optimiser keeps for a parameter it has moved. One not listed cannot be checked."""


class Settings(Recipe):
    """All of an optimiser that is not a tensor."""

    kind: str
    groups: list[dict[str, Any]]
    """The parameter groups without their parameters."""
    moved: list[int]
    """Parameters, in order, for which there are moments."""


def pack(optimiser: Optimizer) -> tuple[Tensors, Settings]:
    """Split an optimiser into tensors, named `parameter/moment`, and settings."""
    _moments_of(optimiser)
    state = optimiser.state_dict()
    held = {i: {k: v for k, v in s.items() if v is not None} for i, s in state["state"].items()}
    tensors = {f"{i}/{name}": value for i, kept in held.items() for name, value in kept.items()}
    moved = sorted(i for i, kept in held.items() if kept)
    return tensors, Settings(kind=type(optimiser).__name__, groups=_groups(optimiser), moved=moved)


def unpack(optimiser: Optimizer, tensors: Tensors, settings: Settings, where: Path) -> None:
    """Fill a fresh optimiser; refuse what another optimiser, or other settings, have left."""
    _demand_same_settings(optimiser, settings, where)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    if any(not 0 <= i < len(parameters) for i in settings.moved):
        misfit(where, f"moments of parameters {settings.moved}, of {len(parameters)}")
    moments = _moments_of(optimiser)
    wanted = {f"{i}/{m}": _like(m, parameters[i]) for i in settings.moved for m in moments}
    demand_fit(tensors, wanted, where)
    state = {i: {m: tensors[f"{i}/{m}"].clone() for m in moments} for i in settings.moved}
    groups = optimiser.state_dict()["param_groups"]
    for group, saved in zip(groups, settings.groups, strict=True):
        group["lr"] = saved["lr"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def _moments_of(optimiser: Optimizer) -> frozenset[str]:
    kind = type(optimiser).__name__
    amsgrad = any(group.get("amsgrad") for group in optimiser.param_groups)
    if kind not in MOMENTS or amsgrad:
        raise ValueError(
            f"{kind}{' with amsgrad' if amsgrad else ''} cannot be resumed exactly; "
            f"use one of {', '.join(MOMENTS)}, or add its moments to MOMENTS"
        )
    return MOMENTS[kind]


def _like(moment: str, parameter: Tensor) -> Tensor:
    return torch.zeros(()) if moment == "step" else parameter


def _groups(optimiser: Optimizer) -> list[dict[str, Any]]:
    def settings(group: dict[str, Any]) -> dict[str, Any]:
        shapes = [list(p.shape) for p in group["params"]]
        return {k: v for k, v in group.items() if k != "params"} | {"shapes": shapes}

    groups = [settings(group) for group in optimiser.param_groups]
    plain: list[dict[str, Any]] = json.loads(json.dumps(groups))  # tuples become lists
    return plain


def _demand_same_settings(optimiser: Optimizer, settings: Settings, where: Path) -> None:
    kind, groups = type(optimiser).__name__, _groups(optimiser)
    if settings.kind != kind:
        misfit(where, f"made by {settings.kind}, the recipe asks for {kind}")
    if len(settings.groups) != len(groups):
        misfit(where, f"{len(settings.groups)} parameter groups instead of {len(groups)}")
    for saved, asked in zip(settings.groups, groups, strict=True):
        names = sorted(saved.keys() | asked.keys())
        other = [n for n in names if n != "lr" and saved.get(n) != asked.get(n)]
        if other or not isinstance(saved.get("lr"), float | int):
            misfit(where, f"optimiser settings that differ: {', '.join(other) or 'lr'}")
