"""Weights and training state on disk: whole, verified, and fitting exactly - or refused.

A checkpoint is a folder: tensors in safetensors, the rest in JSON, and `SHA256SUMS` over both,
written last, so a save that is cut short never looks like a checkpoint (`sha256sum -c SHA256SUMS`
checks it too). Neither safetensors nor pickle notices a flipped bit; and a pickle can run code,
so none is ever opened.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from synth_ct.kit.durable import sha256_of, sync_folder, write_bytes, write_text
from synth_ct.kit.quarantine import Refused

CHECKPOINTS = "checkpoints"
"""Where a training keeps its state while it lasts; a finished folder has its weights alone."""
SUMS = "SHA256SUMS"
TENSORS = "tensors.safetensors"
REST = "rest.json"
STEP = "step-"
STEP_DIGITS = "[0-9]" * 8
MAX_BYTES = 64 * 2**30
"""Larger than any state of ours; a file beyond it is not read into memory."""
MAX_JSON_BYTES = 2**26
PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"})

Tensors = dict[str, Tensor]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Saved:
    """What a verified checkpoint holds."""

    tensors: Tensors
    rest: dict[str, Any]
    where: Path

    def below(self, prefix: str) -> Tensors:
        """The tensors named `prefix/...`, without it."""
        start = f"{prefix}/"
        named = ((name, t) for name, t in self.tensors.items() if name.startswith(start))
        return {name.removeprefix(start): tensor for name, tensor in named}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """Where a run keeps its state, and how often. Changes nothing about the result."""

    folder: Path
    every: int = 500
    """Steps between two saves."""
    keep: int = 2

    def __post_init__(self) -> None:
        if self.keep < 2:
            raise ValueError(
                f"keep is {self.keep}; at least 2 are needed, so that a damaged newest checkpoint "
                "leaves one to go on from"
            )
        if self.every < 1:
            raise ValueError(f"every is {self.every}; a checkpoint is saved each 1 step or more")

    def of(self, step: int) -> Path:
        """The folder of one checkpoint."""
        return self.folder / f"{STEP}{step:08d}"

    def steps(self) -> list[int]:
        """Steps with a completed save, oldest first; whether it is still intact is not checked."""
        return sorted(
            int(path.parent.name.removeprefix(STEP))
            for path in self.folder.glob(f"{STEP}{STEP_DIGITS}/{SUMS}")
        )

    def save(self, step: int, tensors: Tensors, rest: Mapping[str, Any]) -> None:
        """Add a checkpoint, then drop those it makes superfluous."""
        write(self.of(step), tensors, rest)
        before = [other for other in self.steps() if other < step]
        spared = {step, *before[-(self.keep - 1) :]}
        for path in sorted(self.folder.glob(f"{STEP}{STEP_DIGITS}")):
            # One that is newer was damaged, or this run would have begun from it.
            if path not in {self.of(other) for other in spared}:
                _remove(path)

    def newest_good(self) -> Saved | None:
        """The newest checkpoint that verifies, None before the first; damaged ones are reported."""
        refusals = []
        for step in reversed(self.steps()):
            try:
                return read(self.of(step))
            except Refused as refusal:
                logger.warning("%s", refusal)
                refusals.append(refusal.cause)
        if refusals:
            raise Refused(
                "E_CHECKPOINT_DAMAGED",
                f"no checkpoint is left in {self.folder}: {'; '.join(refusals)}",
                "restore one from a copy, or delete the folder to train from the start",
            )
        return None


# ---- one checkpoint ----------------------------------------------------------------------------


def write(folder: Path, tensors: Tensors, rest: Mapping[str, Any]) -> None:
    """Write a checkpoint durably; it counts only from its last byte on."""
    data = _bytes_of(tensors, folder)
    text = json.dumps(rest, indent=1, allow_nan=False)
    if folder.exists():
        _remove(folder)
    folder.mkdir(parents=True)
    sums = {TENSORS: write_bytes(folder / TENSORS, data), REST: write_text(folder / REST, text)}
    write_text(folder / SUMS, "".join(_sum_line(sha256, name) for name, sha256 in sums.items()))
    sync_folder(folder.parent)


def read(folder: Path) -> Saved:
    """Read a checkpoint back, or refuse it with the file and the cause."""
    if folder.is_file():
        _damaged(folder, f"it is one file; a checkpoint is a folder with {TENSORS}, {REST}, {SUMS}")
    sums = _bytes_in(folder / SUMS, MAX_JSON_BYTES)
    data = {
        TENSORS: _bytes_in(folder / TENSORS, MAX_BYTES),
        REST: _bytes_in(folder / REST, MAX_JSON_BYTES),
    }
    lines = {name: _sum_line(sha256_of(content), name) for name, content in data.items()}
    for name, line in lines.items():
        if line.encode() not in sums:
            _damaged(folder / name, f"its sha256 is not the one in {SUMS}")
    if sums != "".join(lines.values()).encode():
        _damaged(folder / SUMS, "it holds more than the sums of its two files")
    tensors = _tensors_in(data[TENSORS], folder / TENSORS)
    return Saved(tensors, _json_in(data[REST], folder / REST), folder)


def _remove(folder: Path) -> None:
    (folder / SUMS).unlink(missing_ok=True)  # first: what is half removed must not look whole
    shutil.rmtree(folder)


def _sum_line(sha256: str, name: str) -> str:
    return f"{sha256}  {name}\n"


# ---- weights of a finished model ---------------------------------------------------------------


def save_weights(path: Path, weights: Tensors) -> str:
    """Write `<name>.safetensors` and its sha256 beside it; return the sha256."""
    sha256 = write_bytes(path, _bytes_of(weights, path))
    write_text(_sidecar(path), _sum_line(sha256, path.name))
    return sha256


def load_weights(path: Path, module: nn.Module, sha256: str | None = None) -> None:
    """Fill a module, exactly; without a recorded sha256 the one beside the file is asked for."""
    load_module(module, read_weights(path, sha256), path)


def read_weights(path: Path, sha256: str | None = None) -> Tensors:
    """The tensors of a file that is the one recorded, here or beside it."""
    data = _bytes_in(path, MAX_BYTES)
    found = sha256_of(data)
    if sha256 is None:
        line = _bytes_in(_sidecar(path), MAX_JSON_BYTES)
        intact = line == _sum_line(found, path.name).encode()
    else:
        intact = found == sha256
    if not intact:
        _damaged(path, f"its sha256 is {found[:12]}..., another was recorded")
    return _tensors_in(data, path)


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


# ---- fitting -----------------------------------------------------------------------------------


def load_module(module: nn.Module, tensors: Tensors, where: Path) -> None:
    """Fill a module with exactly its own tensors: none missing, none left over."""
    demand_fit(tensors, module.state_dict(), where)
    module.load_state_dict(tensors, strict=True)


def demand_fit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: Path) -> None:
    """Raise, naming them, unless names, shapes and dtypes are exactly the wanted ones."""
    faults = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    faults += [f"{name} is not known here" for name in sorted(found.keys() - wanted.keys())]
    faults += [
        f"{name} is {_kind(found[name])} instead of {_kind(wanted[name])}"
        for name in sorted(found.keys() & wanted.keys())
        if _kind(found[name]) != _kind(wanted[name])
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        misfit(where, ", ".join(faults[:5]) + more)


def misfit(where: Path, cause: str) -> NoReturn:
    """Refuse something intact that belongs to another model or recipe."""
    raise Refused(
        "E_CHECKPOINT_MISFIT",
        f"{where} does not fit: {cause}",
        "build the model with the recipe it was saved under",
    )


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Put `prefix/` before each name."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


# ---- bytes -------------------------------------------------------------------------------------


def _bytes_of(tensors: Mapping[str, Tensor], where: Path) -> bytes:
    bad = _not_finite(tensors)
    if bad:
        raise ValueError(f"{where} was not saved: NaN or infinity in {', '.join(bad[:5])}")
    # A copy each: safetensors refuses tensors that share memory (tied weights).
    own = {k: t.detach().to("cpu", copy=True).contiguous() for k, t in tensors.items()}
    data: bytes = safetensors.torch.save(own)
    return data


def _bytes_in(path: Path, most: int) -> bytes:
    _refuse_pickle(path)
    try:
        if path.stat().st_size > most:
            _damaged(path, f"it is larger than {most} bytes")
        return path.read_bytes()
    except OSError as error:
        _damaged(path, f"it cannot be read ({error.strerror})")


def _refuse_pickle(path: Path) -> None:
    start = b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(9)
    # A safetensors header may begin with pickle's 0x80, but its ninth byte is always "{".
    looks = start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[8:] != b"{")
    if looks or path.suffix.lower() in PICKLE_SUFFIXES:
        raise Refused(
            "E_PICKLE",
            f"{path} is a pickle or carries its suffix; opening one can run whatever it says",
            "where you trust it: torch.load(path, weights_only=True), then "
            "safetensors.torch.save_file, and load the .safetensors",
        )


def _tensors_in(data: bytes, where: Path) -> Tensors:
    try:
        tensors: Tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        _damaged(where, f"not safetensors: {error}")
    bad = _not_finite(tensors)
    if bad:
        _damaged(where, f"NaN or infinity in {', '.join(bad[:5])}")
    return tensors


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    return [k for k, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]


def _json_in(data: bytes, where: Path) -> dict[str, Any]:
    try:
        rest = json.loads(data)
    except (ValueError, RecursionError) as error:
        _damaged(where, f"not JSON: {error}")
    if not isinstance(rest, dict):
        _damaged(where, "not a JSON object")
    return rest


def _damaged(where: Path, cause: str) -> NoReturn:
    raise Refused(
        "E_CHECKPOINT_DAMAGED",
        f"{where} cannot be trusted: {cause}",
        "restore it from a copy or use an older one",
    )
