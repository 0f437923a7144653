"""A protocol is frozen once, and whoever reads it gets what was frozen."""

import json
from pathlib import Path

import pytest

from reports.protocol import FILE, NAME, Contrast, Protocol, fingerprint, open_protocol
from reports.protocol import protocol_stage as stage
from synth_ct.kit.artifact import Record, publish, read_record
from synth_ct.kit.effort import Effort

PROTOCOL = Protocol(arms=("scratch", "synthetic"), seeds=(0, 1, 2))


def frozen(root: Path, protocol: Protocol = PROTOCOL) -> Path:
    wanted = Record(kind=NAME, recipe=protocol.model_dump(mode="json"))
    with publish(root / NAME, wanted) as workspace:
        stage(protocol, workspace, {}, Effort())
    return root / NAME


def test_it_is_read_back_word_for_word(tmp_path: Path) -> None:
    folder = frozen(tmp_path)
    assert open_protocol(folder) == PROTOCOL
    written = json.loads((folder / FILE).read_text())
    assert written["protocol"]["margin_points"] == 1.0
    assert len(written["sha256"]) == 64


def test_its_fingerprint_is_known_before_it_is_written(tmp_path: Path) -> None:
    record = read_record(frozen(tmp_path))
    assert record is not None
    assert record.fingerprint == fingerprint(PROTOCOL)
    assert fingerprint(PROTOCOL) != fingerprint(Protocol(arms=PROTOCOL.arms, seeds=(0, 1)))


def test_the_four_questions_are_the_default() -> None:
    asked = [(c.arm, c.baseline) for c in PROTOCOL.headline]
    assert asked == [("synthetic", b) for b in ("scratch", "real", "drr", "primitives")]


def test_a_margin_widened_afterwards_is_noticed(tmp_path: Path) -> None:
    folder = frozen(tmp_path)
    path = folder / FILE
    path.write_text(path.read_text().replace('"margin_points": 1.0', '"margin_points": 3.0'))
    with pytest.raises(ValueError, match="not the protocol that was frozen"):
        open_protocol(folder)


def test_another_folder_is_no_protocol(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run the stage"):
        open_protocol(tmp_path)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("arms", ("scratch", "scratch")),
        ("seeds", (0, 0)),
        ("headline", (Contrast(arm="a", baseline="b"), Contrast(arm="b", baseline="a"))),
    ],
)
def test_nothing_is_asked_twice(field: str, values: tuple[object, ...]) -> None:
    fields = {"arms": ("scratch", "real"), "seeds": (0,), field: values}
    with pytest.raises(ValueError, match=f"{field} names something twice"):
        Protocol.model_validate(fields)


def test_an_arm_is_not_compared_with_itself() -> None:
    with pytest.raises(ValueError, match="name two arms"):
        Contrast(arm="real", baseline="real")
