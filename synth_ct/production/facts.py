"""What each numerics fingerprint of a run stands for: noted by workers, gathered by the driver."""

import json
from collections.abc import Mapping
from pathlib import Path

from synth_ct.corpus.layout import ABOUT
from synth_ct.kit.artifact import code_hash
from synth_ct.kit.durable import write_text
from synth_ct.kit.numerics import numerics

PREFIX = "numerics-"


def facts_of(device: str) -> dict[str, str]:
    """All that may change a volume's bits: the machine and its libraries, and our own code."""
    return numerics(device) | {"code": code_hash()}


def note_numerics(workspace: Path, fingerprint: str, facts: Mapping[str, str]) -> None:
    """Called by every worker; equal fingerprints write equal files."""
    file = workspace / f"{PREFIX}{fingerprint}.json"
    if not file.exists():
        write_text(file, json.dumps(dict(facts), indent=1))


def noted_numerics(workspace: Path) -> dict[str, dict[str, str]]:
    """All that was noted, by fingerprint; a run that died while it finished gathered some."""
    gathered: dict[str, dict[str, str]] = {}
    if (workspace / ABOUT).exists():
        gathered = json.loads((workspace / ABOUT).read_text())["numerics"]
    files = sorted(workspace.glob(f"{PREFIX}*.json"))
    return gathered | {f.stem.removeprefix(PREFIX): json.loads(f.read_text()) for f in files}


def forget_numerics(workspace: Path) -> None:
    """Remove the notes; `corpus.json` has them now."""
    for file in workspace.glob(f"{PREFIX}*.json"):
        file.unlink()
