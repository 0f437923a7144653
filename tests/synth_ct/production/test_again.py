"""A finished corpus gets its own bytes back, from its generator and its radiographs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synth_ct.corpus import Corpus
from synth_ct.corpus.layout import volume_file
from synth_ct.corpus.repair import repair
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.effort import Effort
from synth_ct.production.again import maker_of
from synth_ct.production.commission import commission
from synth_ct.production.films import films_of
from synth_ct.production.local import Processes
from synth_ct.production.order import CorpusRecipe
from synth_ct.production.stage import Hands, fill


@pytest.fixture
def made(generator_root: Path, tmp_path: Path) -> Path:
    (tmp_path / "films").mkdir()
    for n in range(3):
        rows = np.linspace(40, 200, 96)[:, None] + np.random.default_rng(n).normal(0, 9, (96, 96))
        Image.fromarray(rows.clip(0, 255).astype(np.uint8)).save(tmp_path / f"films/{n}.png")
    recipe = CorpusRecipe(gate="record", samples=2)
    films = films_of(tmp_path / "films", lambda done=1, note="", /: None)
    order = commission(films, generator_root, recipe)
    hands = Hands(executor=Processes(count=1), effort=Effort())
    with publish(tmp_path / "corpus", Record(kind="corpus", recipe={})) as workspace:
        fill(order, generator_root, recipe, workspace, hands)
    return tmp_path / "corpus"


def test_exactly_what_is_damaged_or_missing_comes_back_bit_for_bit(
    made: Path, generator_root: Path
) -> None:
    before = {p: p.read_bytes() for p in sorted(made.rglob("*")) if p.is_file()}
    first, second, *_ = Corpus.open(made).accepted()
    (made / volume_file(first.id)).unlink()
    damaged = bytearray((made / volume_file(second.id)).read_bytes())
    damaged[40] ^= 1
    (made / volume_file(second.id)).write_bytes(damaged)
    done = repair(made, maker_of(made, generator_root, "cpu"))
    assert set(done.restored) == {volume_file(first.id), volume_file(second.id)}
    assert not done.left
    assert {p: p.read_bytes() for p in sorted(made.rglob("*")) if p.is_file()} == before


def test_another_generator_is_refused_by_its_fingerprint(
    corpus: Path, generator_root: Path
) -> None:
    with pytest.raises(ValueError, match="was made by generator mmmmmmmmmmmmmmmm"):
        maker_of(corpus, generator_root, "cpu")
