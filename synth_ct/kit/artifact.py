"""A finished folder on disk, with a record of what made it: whole, or absent.

Stages speak to one another only through artifacts. Work happens in `<name>.partial`, locked;
receipts and checkpoints live there, so a rerun of the same recipe continues where the last one
died. `record.json` is written last and synced, then the folder takes its name in one rename.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from synth_ct.kit.checkpoint import CHECKPOINTS
from synth_ct.kit.durable import sha256_of_file, sync_folder, write_text
from synth_ct.kit.numerics import numerics
from synth_ct.kit.quarantine import REPORT

RECORD = "record.json"
PLAN = "recipe.partial.json"
PARTIAL = ".partial"
LOCK = ".lock"
LOCAL_FILES = frozenset({REPORT, "sources.csv"})
"""Files that hold paths of this machine: never hashed into an identity, never exported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Who made this folder, from what, and how."""

    kind: str
    recipe: dict[str, Any]
    inputs: dict[str, str] = field(default_factory=dict)
    """Name of each input artifact -> its fingerprint."""
    files: dict[str, str] = field(default_factory=dict)
    """Name of each file at the top of the folder -> its sha256."""
    code: str = ""
    """Hash of the packaged sources that ran."""
    numerics: dict[str, str] = field(default_factory=dict)
    seal: str = ""
    """sha256 of all the rest: a flipped bit in a number would otherwise read as another number."""

    @property
    def fingerprint(self) -> str:
        """Sixteen digits that change when kind, recipe, inputs or outcome change."""
        identity = {k: getattr(self, k) for k in ("kind", "recipe", "inputs", "files")}
        text = json.dumps(identity, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def sealed(self) -> "Record":
        """The record with its seal."""
        rest = json.dumps({**asdict(self), "seal": ""}, sort_keys=True, allow_nan=False)
        return replace(self, seal=hashlib.sha256(rest.encode()).hexdigest())

    def text(self) -> str:
        """As `record.json` holds it."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)


@cache
def code_hash() -> str:
    """One hash over every Python file of the package, so a record says which code ran."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0{sha256_of_file(path)}\n".encode())
    return digest.hexdigest()[:16]


def read_record(folder: Path) -> Record | None:
    """Return the record of a finished artifact, or None where there is none yet."""
    path = folder / RECORD
    if not path.exists():
        return None
    try:
        text = path.read_text()
        record = Record(**json.loads(text))
        if record.seal and (record.seal != record.sealed().seal or record.text() != text):
            raise ValueError("it does not match its seal")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); the folder cannot be trusted: delete it and run again"
        ) from error
    return record


def differing_fields(found: Any, wanted: Any, prefix: str = "") -> list[str]:
    """Dotted names of the leaves in which two nested recipes differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = sorted({*found, *wanted})
        below = [
            differing_fields(found.get(n), wanted.get(n), f"{prefix}.{n}" if prefix else n)
            for n in names
        ]
        return [name for group in below for name in group]
    return [] if found == wanted else [prefix]


def refuse_other(folder: Path, found: Record, wanted: Record) -> None:
    """Raise, naming the fields, unless `found` was made as `wanted` asks."""
    parts = ("kind", "recipe", "inputs")
    was, asked = ({p: getattr(r, p) for p in parts} for r in (found, wanted))
    changed = differing_fields(json.loads(json.dumps(was)), json.loads(json.dumps(asked)))
    if changed:
        raise ValueError(
            f"{folder} was made by another recipe; fields that differ: {', '.join(changed)}. "
            "Choose another root or name, or delete the folder to make it anew."
        )


def is_done(folder: Path, wanted: Record) -> bool:
    """Say whether `folder` already holds `wanted`; complain if it holds something else."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, where a folder is to be made; choose another name")
    found = read_record(folder)
    if found is not None:
        refuse_other(folder, found, wanted)
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(
            f"{folder} exists but holds no {RECORD}, so it is not a finished artifact; "
            "choose another name or remove the folder"
        )
    return found is not None


def partial_of(folder: Path) -> Path:
    """Where the work on `folder` happens until it is finished."""
    return folder.with_name(f"{folder.name}{PARTIAL}")


def folder_name(name: str) -> str:
    """The name itself, if a finished folder can have it."""
    if not re.fullmatch(r"[a-z0-9_][a-z0-9_.-]*", name) or name.endswith(PARTIAL):
        raise ValueError(
            f"{name!r} cannot name a folder of results: use small letters, digits, '_', '-' and "
            f"'.', none of the last two first, and another end than {PARTIAL!r}"
        )
    return name


def reopen(folder: Path, wanted: Record) -> None:
    """Take a finished artifact back into its workspace, because a person asked for more of it.

    What is made of it then has a fingerprint of its own: who used the old one is told.
    """
    workspace = partial_of(folder)
    if workspace.exists():
        raise ValueError(f"{workspace} is there already; finish or remove it first")
    refuse_other(folder, _demanded(folder), wanted)
    folder.rename(workspace)
    write_text(workspace / PLAN, json.dumps(asdict(wanted), indent=1, allow_nan=False))
    (workspace / RECORD).unlink()
    sync_folder(workspace.parent)


def _demanded(folder: Path) -> Record:
    record = read_record(folder)
    assert record is not None, "only finished artifacts are reopened"
    return record


@contextmanager
def publish(folder: Path, wanted: Record, device: str = "cpu") -> Generator[Path, None, None]:
    """Yield the locked workspace to fill; it takes its real name only if the block succeeds.

    What an earlier, killed run of the same recipe left in the workspace is still there.
    """
    if is_done(folder, wanted):
        raise ValueError(f"{folder} is finished; a finished artifact never changes")
    workspace = partial_of(folder)
    workspace.mkdir(parents=True, exist_ok=True)
    lock = FileLock(workspace / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another process is working on {workspace}; wait for it or end it"
        ) from None
    try:
        _begin_or_continue(workspace, wanted)
        yield workspace
        _finish(workspace, folder, wanted, device)
    finally:
        lock.release()


def _begin_or_continue(workspace: Path, wanted: Record) -> None:
    plan = workspace / (PLAN if (workspace / PLAN).exists() else RECORD)
    begun = {path.name for path in workspace.iterdir()} - {PLAN, LOCK}
    if plan.exists() and begun:
        refuse_other(workspace, Record(**json.loads(plan.read_text())), wanted)
    write_text(workspace / PLAN, json.dumps(asdict(wanted), indent=1, allow_nan=False))
    (workspace / RECORD).unlink(missing_ok=True)  # of a run that died as it finished, or reopened


def _finish(workspace: Path, folder: Path, wanted: Record, device: str) -> None:
    ours = LOCAL_FILES | {PLAN, LOCK, RECORD}
    tops = sorted(p for p in workspace.iterdir() if p.is_file() and p.name not in ours)
    files = {p.name: sha256_of_file(p) for p in tops}
    done = replace(wanted, files=files, code=code_hash(), numerics=numerics(device))
    write_text(workspace / RECORD, done.sealed().text())
    for leftover in (PLAN, LOCK):
        (workspace / leftover).unlink(missing_ok=True)
    shutil.rmtree(workspace / CHECKPOINTS, ignore_errors=True)
    if folder.exists():
        folder.rmdir()  # an empty folder a person made beforehand
    workspace.rename(folder)
    sync_folder(folder.parent)
