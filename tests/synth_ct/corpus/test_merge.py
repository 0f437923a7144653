"""Corpora become one: every item once, every person under one name, nothing inherited damaged."""

from dataclasses import replace
from pathlib import Path

import pytest
from corpora import ABOUT, SIDE, make_corpus

from synth_ct.corpus import Corpus, Row
from synth_ct.corpus.about import Source
from synth_ct.corpus.layout import preview_file, volume_file
from synth_ct.corpus.merge import Placed, about_of, merge, one_of, pseudonyms_of
from synth_ct.corpus.row import Quarantined
from synth_ct.corpus.verify import verify


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Two corpora with ten items in common."""
    make_corpus(tmp_path / "a", range(20))
    make_corpus(tmp_path / "b", range(10, 30))
    return [tmp_path / "a", tmp_path / "b"]


def test_the_merged_corpus_has_every_item_once_and_is_whole(
    parts: list[Path], tmp_path: Path
) -> None:
    make_corpus(tmp_path / "all", range(30))
    merge(parts, tmp_path / "ab")
    merge(parts[::-1], tmp_path / "ba")
    merged, other, straight = (Corpus.open(tmp_path / n) for n in ("ab", "ba", "all"))
    assert verify(merged.folder).ok
    assert merged.about.digest == other.about.digest == straight.about.digest
    assert merged.about.counts == straight.about.counts
    assert merged.about.codes == straight.about.codes
    assert merged.record.fingerprint == other.record.fingerprint
    assert set(merged.record.inputs.values()) == {Corpus.open(p).record.fingerprint for p in parts}
    for row in merged.accepted():
        assert merged.volume(row).array_XYZ.shape == (SIDE,) * 3
        assert any(
            (p / volume_file(row.id)).samefile(merged.folder / volume_file(row.id))
            for p in parts
            if (p / volume_file(row.id)).exists()
        )


def entry(item: str, patient: str, film: str = "") -> Quarantined:
    return Quarantined(
        id=item, radiograph_sha256=film or item, patient=patient, finding="", code="E", cause=""
    )


def test_people_are_joined_by_their_radiographs_and_never_by_their_names() -> None:
    entries = [
        Placed(entry("b", "p1"), 0),
        Placed(entry("c", "p1", "film"), 0),
        Placed(entry("d", "p1"), 1),  # another archive's p1
        Placed(entry("e", "p7", "film"), 1),  # the first p1, under another name
        Placed(entry("a", "p7"), 1),
        Placed(entry("f", "p8"), 2),
    ]
    assert pseudonyms_of(entries) == {
        (0, "p1"): "pa",
        (1, "p7"): "pa",
        (1, "p1"): "pd",
        (2, "p8"): "pf",
    }


def test_items_without_a_radiograph_are_not_one_person() -> None:
    one, two = entry("a", "pa"), entry("b", "pb")
    some = [Placed(replace(e, radiograph_sha256=""), 0) for e in (one, two)]
    assert set(pseudonyms_of(some).values()) == {"pa", "pb"}


def test_patients_of_a_merged_corpus_keep_together_what_belongs_together(
    parts: list[Path], tmp_path: Path
) -> None:
    merge(parts, tmp_path / "ab")
    whose = {row.id: row.patient for part in parts for row in Corpus.open(part).rows()}
    now = {row.id: row.patient for row in Corpus.open(tmp_path / "ab").rows()}
    assert len(set(now.values())) == len(set(whose.values())) == 5
    pairs = {(whose[item], now[item]) for item in whose}
    assert len(pairs) == 5  # one to one
    items = {*now, *(path.stem for path in (tmp_path / "ab").glob("quarantine/*/*.json"))}
    assert {name[1:] for name in now.values()} <= items


def test_the_same_id_with_other_voxels_is_refused_by_name(parts: list[Path]) -> None:
    corpora = [Corpus.open(part) for part in parts]
    row = corpora[0].accepted()[0]
    assert isinstance(row, Row)
    with pytest.raises(ValueError, match=f"{row.id}, with other voxels"):
        one_of([Placed(row, 0), Placed(replace(row, voxel_sha256="0"), 1)], corpora)
    other_gzip = replace(row, file_sha256="another gzip")
    assert one_of([Placed(row, 0), Placed(other_gzip, 1)], corpora).corpus == 0
    assert one_of([Placed(entry(row.id, "p"), 0), Placed(row, 1)], corpora).entry is row


def test_damage_is_not_inherited(parts: list[Path], tmp_path: Path) -> None:
    own = {row.id for row in Corpus.open(parts[1]).accepted()}
    own -= {row.id for row in Corpus.open(parts[0]).accepted()}
    file = parts[1] / preview_file(min(own))
    file.write_bytes(b"?")
    with pytest.raises(ValueError, match="corpus repair"):
        merge(parts, tmp_path / "ab")
    assert not (tmp_path / "ab").exists()


def test_other_grids_one_corpus_and_the_same_twice_are_refused_by_name(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="name two or more"):
        merge(parts[:1], tmp_path / "ab")
    with pytest.raises(ValueError, match="same corpus"):
        merge([parts[0], parts[0]], tmp_path / "ab")
    with pytest.raises(ValueError, match="lies inside"):
        merge(parts, parts[0] / "ab")
    monkeypatch.setattr("corpora.ABOUT", ABOUT.model_copy(update={"shape": (32, 32, 32)}))
    make_corpus(tmp_path / "c", range(3))
    with pytest.raises(ValueError, match=r"c has 32 x 32 x 32 voxels.*a corpus has one"):
        merge([*parts, tmp_path / "c"], tmp_path / "abc")


def test_what_is_said_of_a_merged_corpus_is_what_the_parts_say_and_the_weakest_of_it() -> None:
    films = Source(role="radiographs", title="films of children", licence="CC BY 4.0")
    real = ABOUT.model_copy(
        update={"evidence": "real", "generator": "other", "sources": (*ABOUT.sources, films)}
    )
    about = about_of([real, ABOUT])
    assert (about.kind, about.evidence, about.generator) == ("merged", "phantom", "other, test")
    assert about.model == ABOUT.model
    assert about.sources == (*ABOUT.sources, films)
    assert about_of([real, real]).evidence == "real"
