"""From radiographs and a trained generator to a finished corpus."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synth_ct.corpus import Corpus
from synth_ct.corpus.about import About
from synth_ct.corpus.layout import preview_file, volume_file
from synth_ct.generator import open_generator
from synth_ct.kit.effort import Effort
from synth_ct.production.films import films_of
from synth_ct.production.local import Processes
from synth_ct.production.maker import LoadMaker
from synth_ct.production.order import CorpusRecipe, Item
from synth_ct.production.stage import Hands, finished, make_corpus
from synth_ct.reconstruct import Sampling, read_films, reconstruct

RECORD = CorpusRecipe(gate="record")
HANDS = Hands(executor=Processes(count=1), effort=Effort())


def silent(done: int = 1, note: str = "", /) -> None:
    """Progress nobody watches."""


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Three films of this size, and one that is no image."""
    folder = tmp_path / "films"
    folder.mkdir()
    for n in range(3):
        write_film(folder / f"{n}.png", n)
    (folder / "web page.jpeg").write_text("<html>404</html>")
    return folder


def write_film(path: Path, seed: int) -> None:
    rows = np.linspace(40, 200, 96)[:, None] + np.random.default_rng(seed).normal(0, 9, (96, 96))
    Image.fromarray(rows.clip(0, 255).astype(np.uint8)).save(path)


def make(films: Path, root: Path, out: Path, recipe: CorpusRecipe = RECORD) -> About:
    return make_corpus(films_of(films, silent), root, recipe, out, HANDS)


def done(films: Path, root: Path, out: Path, *retry: str) -> About | None:
    return finished(films_of(films, silent), root, RECORD, out, frozenset(retry))


@pytest.fixture
def made(films: Path, generator_root: Path, tmp_path: Path) -> Path:
    make(films, generator_root, tmp_path / "corpus")
    return tmp_path / "corpus"


def test_it_holds_what_reconstruct_makes_of_the_same_films(
    made: Path, films: Path, generator_root: Path, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    generator = open_generator(generator_root, torch.device("cpu"))
    read, set_aside = read_films(sorted(films.iterdir()), generator.about.recipe.size, silent)
    assert [row.code for row in set_aside] == ["E_IMG_NOTIMAGE"]
    reconstruct(generator, read, tmp_path / "few", Sampling(), silent)
    rows = Corpus.open(made).accepted()
    assert len(rows) == 3
    for row in rows:
        few = (tmp_path / "few" / f"{row.id}.nii.gz").read_bytes()
        assert (made / volume_file(row.id)).read_bytes() == few
        assert (made / preview_file(row.id)).stat().st_size > 1000


def test_rows_say_all_that_they_depend_on(made: Path) -> None:
    corpus = Corpus.open(made)
    counts = corpus.about.counts
    assert (counts.total, counts.committed, counts.quarantined) == (4, 3, 1)
    assert corpus.about.evidence == "phantom"
    for row in corpus.rows():
        assert row.fingerprint in corpus.about.numerics
        assert row.model == corpus.about.model
        assert row.out_of_distribution is not None
        assert row.out_of_distribution > 0
        assert row.sampler == "dpmpp_2m/2"
        assert corpus.volume(row).array_XYZ.shape == row.shape == corpus.about.shape


def test_films_added_before_the_end_are_taken_in_and_after_it_refused(
    made: Path, films: Path, generator_root: Path, tmp_path: Path
) -> None:
    before = Corpus.open(made).about
    assert done(films, generator_root, made) == before
    write_film(films / "another.png", 9)
    with pytest.raises(ValueError, match="corpus merge"):
        done(films, generator_root, made)
    made.rename(tmp_path / "later.partial")  # as a run that had not finished
    (tmp_path / "later.partial" / "record.json").unlink()
    assert make(films, generator_root, tmp_path / "later").counts.committed == 4


def test_another_recipe_under_the_same_name_is_refused_and_the_field_named(
    made: Path, films: Path, generator_root: Path
) -> None:
    with pytest.raises(ValueError, match=r"recipe\.seed"):
        make(films, generator_root, made, CorpusRecipe(gate="record", seed=1))


def test_quarantined_films_of_a_finished_corpus_are_tried_again_when_asked(
    made: Path, films: Path, generator_root: Path
) -> None:
    kept = {row.id for row in Corpus.open(made).rows()}
    write_film(films / "web page.jpeg", 5)  # another file, so another item
    bad = frozenset({"E_IMG_NOTIMAGE"})
    assert done(films, generator_root, made, *bad) is None
    with pytest.raises(ValueError, match="nothing quarantined as E_NOPE; its codes are E_IMG_NOT"):
        done(films, generator_root, made, "E_NOPE")
    after = make_corpus(films_of(films, silent), generator_root, RECORD, made, HANDS, bad)
    assert (after.counts.committed, after.counts.quarantined) == (4, 0)
    assert kept < {row.id for row in Corpus.open(made).rows()}


def test_the_gate_holds_back_what_fails_a_check(
    films: Path, generator_root: Path, tmp_path: Path
) -> None:
    recorded = make(films, generator_root, tmp_path / "record")
    enforced = make(films, generator_root, tmp_path / "enforce", CorpusRecipe())
    failed = sum(bool(row.reason) for row in Corpus.open(tmp_path / "record").rows())
    assert failed > 0, "a generator of a few steps makes nothing plausible"
    assert enforced.counts.rejected == failed
    assert enforced.counts.committed + failed == recorded.counts.committed
    for row in Corpus.open(tmp_path / "enforce").rows():
        assert (tmp_path / "enforce" / volume_file(row.id)).exists() == row.accepted


def test_a_sampler_that_gives_nan_is_a_rejection_with_its_reason(
    films: Path, generator_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "w").mkdir()
    load = LoadMaker(model=generator_root, device="cpu", recipe=RECORD, workspace=tmp_path / "w")
    maker = load()
    item = Item(
        id="0" * 16, sample=0, seed=1, radiograph_sha256="", patient="p", finding="", path=""
    )
    (made,) = maker.volumes([_seen(item)])
    made.volume.array_XYZ[3, 4, 5] = np.nan
    row = maker.keep(item, made)
    assert (row.accepted, row.reason, row.file_sha256) == (False, "not_finite", "")


def _seen(item: Item) -> object:
    from synth_ct.production.maker import Seen

    return Seen(item, np.zeros((32, 32), np.float32))


def test_a_film_that_changed_since_it_was_listed_is_set_aside(
    films: Path, generator_root: Path, tmp_path: Path
) -> None:
    listed = films_of(films, silent)
    shutil.copy(films / "1.png", films / "0.png")
    about = make_corpus(listed, generator_root, RECORD, tmp_path / "c", HANDS)
    assert about.codes == {"E_IMG_NOTIMAGE": 1, "E_SHA": 1}
