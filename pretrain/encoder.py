"""Product: what pretraining leaves for fine-tuning, and proof that it arrives.

    encoder.safetensors            the transferred tensors, under the backbone's own keys
    encoder.safetensors.sha256     as `sha256sum -c` reads it
    adaptation.json                what they are, and what a receiver must do to their input
    record.json                    who made the folder (`synth_ct.kit.artifact`)

A wrong prefix that loads nothing, a network of another size, a patch merging in another order: each
of them trains on without a word where loading is lenient. Here each is refused, by name.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from pretrain.backbones import Backbone, BackboneSizes, Transferred
from synth_ct.kit.artifact import RECORD, Record, partial_of, read_record
from synth_ct.kit.axes import Grid, Millimetres3
from synth_ct.kit.checkpoint import demand_fit, read_weights, save_weights
from synth_ct.kit.durable import sha256_of_file, write_text
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.recipe import Recipe
from synth_ct.kit.volume import WINDOW_HU

KIND = "encoder"
"""What the record calls such a folder."""
WEIGHTS, ADAPTATION = "encoder.safetensors", "adaptation.json"
SIDECAR = f"{WEIGHTS}.sha256"
SCRATCH = "scratch"
SHOWN = 5
"""Keys named in a message; the rest are counted."""


# ---- adaptation.json ---------------------------------------------------------------------------


class Input(Recipe):
    """What the encoder was shown."""

    axes: Literal["RAS CXYZ"] = "RAS CXYZ"
    spacing_mm: Millimetres3
    window_hu: tuple[float, float] = WINDOW_HU
    """Clipped to it, then mapped to [-1, 1]."""
    crop_XYZ: Grid
    padding_hu: float = WINDOW_HU[0]
    """What a volume smaller than the crop is surrounded by."""
    volume_XYZ: Grid | None = None
    """Of each volume, where all have the same; what they lack of the crop was padded."""


class CorpusUsed(Recipe):
    """Where crops came from."""

    name: str
    digest: str
    evidence: Literal["phantom", "real"]


class Adaptation(Recipe):
    """All that a receiver of the weights must know, and may refuse over."""

    layout: Literal[1] = 1
    architecture: BackboneSizes
    transferred: Transferred
    input: Input
    arm: str
    objective: dict[str, Any] | None
    """Its recipe; None of the untouched initial weights."""
    steps: int = Field(ge=0)
    seed: int
    corpora: tuple[CorpusUsed, ...] = ()
    evidence: Literal["plumbing", "phantom", "real"]
    numerics: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _only_scratch_is_untrained(self) -> "Adaptation":
        untouched = self.arm == SCRATCH
        if untouched != (self.steps == 0) or untouched != (self.objective is None):
            raise ValueError(
                f"arm {self.arm!r} with {self.steps} steps and objective "
                f"{'none' if self.objective is None else 'given'}: {SCRATCH!r} has 0 steps and "
                "no objective, every other arm has both"
            )
        return self


def write_encoder(workspace: Path, backbone: Backbone, adaptation: Adaptation) -> None:
    """Put the transferred tensors of a backbone into a workspace that somebody publishes."""
    assert backbone.sizes == adaptation.architecture, "the record is about another network"
    state = backbone.state_dict()
    keys = backbone.transferred(adaptation.transferred)
    save_weights(workspace / WEIGHTS, {key: state[key] for key in keys})
    write_text(workspace / ADAPTATION, adaptation.model_dump_json(indent=1))


# ---- reading -----------------------------------------------------------------------------------


class Loaded(NamedTuple):
    """What arrived."""

    tensors: int
    keys: tuple[str, ...]
    share: float
    """Of the receiver's parameters, head included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A verified encoder artifact."""

    folder: Path
    fingerprint: str
    adaptation: Adaptation
    tensors: Mapping[str, Tensor]

    @classmethod
    def open(cls, folder: Path) -> "Encoder":
        """Read one, or refuse it with the file and the cause."""
        record = _finished(folder)
        for name in (ADAPTATION, SIDECAR, WEIGHTS):
            _demand_recorded(folder / name, record)
        adaptation = _adaptation_in(folder / ADAPTATION)
        tensors = read_weights(folder / WEIGHTS)
        return cls(
            folder=folder, fingerprint=record.fingerprint, adaptation=adaptation, tensors=tensors
        )

    def demand_input(self, spacing_mm: Millimetres3, window_hu: tuple[float, float]) -> None:
        """Refuse a receiver that would show the weights something else than they were trained on.

        Who does so on purpose does not ask, and records both.
        """
        shown = self.adaptation.input
        pairs = {
            "spacing_mm": (shown.spacing_mm, spacing_mm),
            "window_hu": (shown.window_hu, window_hu),
        }
        for name, (theirs, asked) in pairs.items():
            if tuple(map(float, theirs)) != tuple(map(float, asked)):
                self._misfit(
                    f"{name} was {theirs} in pretraining, the receiver has {asked}",
                    f"prepare the receiver's input with {name} {theirs}",
                )

    def load_into(self, backbone: Backbone) -> Loaded:
        """Fill a backbone with all of it, and prove that it arrived."""
        self._demand_architecture(backbone.sizes)
        keys = backbone.transferred(self.adaptation.transferred)
        own = {key: tensor for key, tensor in backbone.state_dict().items() if key in keys}
        self._demand_keys(keys)
        demand_fit(self.tensors, own, self.folder / WEIGHTS)
        drawn = drawn_at_random(backbone, keys)
        self._demand_none(
            [key for key in drawn if _equal(own[key], self.tensors[key])],
            "the receiver held these very values before, so nothing arrives in",
            "build the receiver from another seed, and an untouched encoder from a seed name of "
            "its own",
        )
        backbone.load_state_dict({**backbone.state_dict(), **self.tensors}, strict=True)
        now = backbone.state_dict()
        self._demand_none(
            [key for key in keys if not _equal(now[key], self.tensors[key])],
            "after loading the receiver does not hold the artifact's values in",
            "use a backbone as `pretrain.backbones.build` makes it, neither compiled nor wrapped",
        )
        return Loaded(len(keys), keys, _share(backbone, keys))

    def _demand_architecture(self, receiver: Recipe) -> None:
        ours, theirs = self.adaptation.architecture.model_dump(), receiver.model_dump()
        names = [n for n in sorted({*ours, *theirs}) if ours.get(n) != theirs.get(n)]
        if names:
            told = ", ".join(f"{n} {ours.get(n)} against {theirs.get(n)}" for n in names)
            self._misfit(
                f"it is of another architecture than the receiver: {told}",
                "build the receiver with the sizes under `architecture` of its adaptation.json",
            )

    def _demand_keys(self, wanted: Sequence[str]) -> None:
        """Both sides are named: of a wrong prefix each alone would say half."""
        lists = {
            "are missing": sorted({*wanted} - self.tensors.keys()),
            "have no place in the receiver": sorted(self.tensors.keys() - {*wanted}),
        }
        told = [f"{_some(keys)} {what}" for what, keys in lists.items() if keys]
        if told:
            self._misfit(
                "; ".join(told), "publish the tensors under the backbone's own keys, all of them"
            )

    def _demand_none(self, keys: Sequence[str], cause: str, remedy: str) -> None:
        if keys:
            raise Refused("E_ENCODER_NOT_ARRIVED", f"{self.folder}: {cause} {_some(keys)}", remedy)

    def _misfit(self, cause: str, remedy: str) -> NoReturn:
        raise Refused("E_ENCODER_MISFIT", f"{self.folder} does not fit: {cause}", remedy)


def drawn_at_random(backbone: nn.Module, keys: Sequence[str]) -> list[str]:
    """Which of them an initialisation draws: parameters whose values are not all one constant."""
    parameters = dict(backbone.named_parameters())
    return [k for k in keys if k in parameters and bool(parameters[k].min() != parameters[k].max())]


def _share(backbone: nn.Module, keys: Sequence[str]) -> float:
    sizes = {name: parameter.numel() for name, parameter in backbone.named_parameters()}
    return sum(sizes.get(key, 0) for key in keys) / sum(sizes.values())


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.detach().cpu(), other.detach().cpu())


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more


# ---- distrust ----------------------------------------------------------------------------------


def _finished(folder: Path) -> Record:
    """The record of a finished encoder."""
    try:
        record = read_record(folder)
    except ValueError as error:
        _damaged(folder / RECORD, str(error))
    if record is None:
        partial = partial_of(folder)
        known = f"; {partial} is there, so its making is under way" if partial.exists() else ""
        _damaged(folder, f"it holds no {RECORD}, so it is not a finished encoder{known}")
    if record.kind.partition("/")[0] != KIND:
        _damaged(folder, f"its record says {record.kind!r}; an encoder was asked for")
    return record


def _demand_recorded(path: Path, record: Record) -> None:
    if not path.is_file():
        _damaged(path, "it is missing")
    if record.files.get(path.name) != sha256_of_file(path):
        _damaged(path, f"its sha256 is not the one in {RECORD}")


def _adaptation_in(path: Path) -> Adaptation:
    try:
        return Adaptation.model_validate(json.loads(path.read_text()))
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            for fault in error.errors()[:SHOWN]
        )
        _damaged(path, told)
    except ValueError as error:
        _damaged(path, f"not JSON: {error}")


def _damaged(where: Path, cause: str) -> NoReturn:
    raise Refused(
        "E_ENCODER_DAMAGED",
        f"{where} cannot be trusted: {cause}",
        "finish the run that makes it, restore it from a copy, or delete the folder and run again",
    )
