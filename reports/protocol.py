"""What will be compared, and how, written down before the first fit.

The protocol is an input of every fit, so no fit can be older than the question it answers, and
`reports.compare` refuses fits made under another one.
"""

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from synth_ct.kit.artifact import Record, read_record
from synth_ct.kit.durable import write_text
from synth_ct.kit.effort import Effort
from synth_ct.kit.recipe import Recipe

NAME = "fits/protocol"
"""Where it lies below the root, and its name among a fit's inputs."""
FILE = "protocol.json"
SCRATCH = "scratch"


class Contrast(Recipe):
    """One question: by how much is the arm better than its baseline?"""

    arm: str
    baseline: str

    @model_validator(mode="after")
    def _two_arms(self) -> "Contrast":
        if self.arm == self.baseline:
            raise ValueError(f"{self.arm} cannot be compared with itself; name two arms")
        return self


HEADLINE = tuple(
    Contrast(arm="synthetic", baseline=baseline)
    for baseline in (SCRATCH, "real", "drr", "primitives")
)


class Protocol(Recipe):
    """The endpoint, the contrasts that count, and what has to be there before they are formed."""

    endpoint: Literal["mean organ Dice"] = "mean organ Dice"
    margin_points: float = Field(default=1.0, gt=0)
    """Smaller gaps are called negligible; in points of Dice, of which there are 100."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    power: float = Field(default=0.8, ge=0.5, lt=1)
    """With which the minimum detectable gap would be found."""
    headline: tuple[Contrast, ...] = HEADLINE
    """The contrasts whose p are corrected together."""
    arms: tuple[str, ...] = Field(min_length=1)
    """Every arm that is fitted. A contrast without its arm is reported as not run."""
    seeds: tuple[int, ...] = Field(min_length=1)
    folds: int = Field(default=5, ge=2)
    resamples: int = Field(default=10_000, ge=100)
    seed: int = 0
    """Of bootstraps and permutations."""

    @model_validator(mode="after")
    def _each_once(self) -> "Protocol":
        pairs = [frozenset((c.arm, c.baseline)) for c in self.headline]
        for name, values in (("arms", self.arms), ("seeds", self.seeds), ("headline", pairs)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names something twice; name each once")
        return self


def protocol_stage(
    recipe: Protocol, workspace: Path, inputs: dict[str, Path], effort: Effort
) -> None:
    """Write the protocol down. It has no inputs: nothing that was measured may shape it."""
    write_text(workspace / FILE, _text(recipe))


def open_protocol(folder: Path) -> Protocol:
    """A finished protocol, word for word as it was frozen."""
    record = read_record(folder)
    if record is None or record.kind != NAME:
        raise ValueError(f"{folder} holds no finished protocol; run the stage `{NAME}` first")
    text = (folder / FILE).read_text()
    protocol = Protocol.model_validate(record.recipe)
    if text != _text(protocol) or record.files.get(FILE) != _sha256(text):
        raise ValueError(
            f"{folder / FILE} is not the protocol that was frozen: its text does not match its "
            "record. Bring the file back, or run the study anew under another root"
        )
    return protocol


def fingerprint(protocol: Protocol) -> str:
    """What stands among the inputs of a fit that was made under this protocol."""
    recipe = protocol.model_dump(mode="json")
    return Record(kind=NAME, recipe=recipe, files={FILE: _sha256(_text(protocol))}).fingerprint


def _text(protocol: Protocol) -> str:
    """As the file holds it: the protocol, and the sha256 of its compact JSON."""
    fields = protocol.model_dump(mode="json")
    compact = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return json.dumps({"protocol": fields, "sha256": _sha256(compact)}, indent=1) + "\n"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
