"""Only recorded bytes are put back, from what repeats them, or from whoever made them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from synth_ct.corpus import Corpus, Row
from synth_ct.corpus.layout import preview_file, volume_file
from synth_ct.corpus.repair import Made, Maker, Repaired, repair
from synth_ct.corpus.verify import verify
from synth_ct.kit.durable import sha256_of_file

HERE = "f" * 16
"""The fingerprint in the rows of test corpora."""


@pytest.fixture
def make(corpus: Path) -> Maker:
    """Makes the same bytes again, as the generator would; says for which rows it was asked."""
    whole = {
        row.id: Made(row, *((corpus / f(row.id)).read_bytes() for f in (volume_file, preview_file)))
        for row in Corpus.open(corpus).accepted()
    }

    def regenerate(rows: Sequence[Row]) -> Iterable[Made]:
        return [whole[row.id] for row in rows]

    return Maker(regenerate=regenerate, fingerprint=HERE)


def sums(corpus: Path) -> dict[str, str]:
    return {str(p.relative_to(corpus)): sha256_of_file(p) for p in corpus.rglob("*") if p.is_file()}


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_everything_that_can_be_put_back_is_bit_for_bit(corpus: Path, make: Maker) -> None:
    before = sums(corpus)
    rows = Corpus.open(corpus).accepted()
    quarantined = sorted(str(p.relative_to(corpus)) for p in corpus.glob("quarantine/*/*.json"))
    damaged = [
        volume_file(rows[0].id), preview_file(rows[1].id), quarantined[0],
        "manifest.parquet", "corpus.json", "README.md",
    ]  # fmt: skip
    deleted = [volume_file(rows[2].id), preview_file(rows[2].id), quarantined[1]]
    for file in damaged:
        spoil(corpus / file)
    for file in deleted:
        (corpus / file).unlink()
    done = repair(corpus, make)
    assert sorted(done.restored) == sorted(damaged + deleted)
    assert not done.left
    assert sums(corpus) == before
    assert repair(corpus, make) == Repaired(restored=(), left=())


@pytest.mark.parametrize(
    "file",
    [
        "receipts/folded.jsonl",
        "receipts/corpus.json",
        "corpus.json",
        "manifest.parquet",
        "README.md",
        "card/sheet.png",
    ],
)
def test_each_derived_file_comes_from_the_others_without_a_generator(
    corpus: Path, file: str
) -> None:
    before = sums(corpus)
    spoil(corpus / file)
    assert repair(corpus).restored == (file,)
    (corpus / file).unlink()
    assert repair(corpus).restored == (file,)
    assert sums(corpus) == before


def test_only_the_damaged_rows_are_made_again(corpus: Path, make: Maker) -> None:
    asked: list[str] = []

    def regenerate(rows: Sequence[Row]) -> Iterable[Made]:
        asked.extend(row.id for row in rows)
        return make.regenerate(rows)

    row = Corpus.open(corpus).accepted()[5]
    spoil(corpus / volume_file(row.id))
    repair(corpus, replace(make, regenerate=regenerate))
    assert asked == [row.id]


def test_files_in_each_others_places_are_put_back_without_making_them_again(corpus: Path) -> None:
    before = sums(corpus)
    a, b, c, *_ = (corpus / volume_file(row.id) for row in Corpus.open(corpus).accepted())
    a.rename(corpus / "x")
    b.rename(a)
    (corpus / "x").rename(b)
    c.rename(corpus / "volumes" / "00" / c.name)
    done = repair(corpus)
    assert len(done.restored) == 3
    (misplaced,) = done.left
    assert "deletes nothing" in misplaced.detail
    (corpus / misplaced.file).unlink()
    assert sums(corpus) == before


def test_other_bytes_than_the_recorded_are_refused_and_the_file_stays_as_it_was(
    corpus: Path, make: Maker
) -> None:
    row = Corpus.open(corpus).accepted()[0]
    spoil(corpus / volume_file(row.id))
    before = sums(corpus)

    def otherwise(rows: Sequence[Row]) -> Iterator[Made]:
        for made in make.regenerate(rows):
            yield made._replace(volume=made.volume + b"\0")

    done = repair(corpus, replace(make, regenerate=otherwise))
    assert done.restored == ()
    assert "other bytes than were recorded" in done.left[0].detail
    assert sums(corpus) == before


def test_under_other_numerics_it_must_be_asked_for(corpus: Path, make: Maker) -> None:
    row = Corpus.open(corpus).accepted()[0]
    spoil(corpus / volume_file(row.id))
    elsewhere = replace(make, fingerprint="e" * 16)
    with pytest.raises(ValueError, match="--other-numerics"):
        repair(corpus, elsewhere)
    assert repair(corpus, replace(elsewhere, other_numerics=True)).restored == (
        volume_file(row.id),
    )


def test_without_a_generator_or_a_radiograph_the_fault_stays_and_says_why(corpus: Path) -> None:
    row = Corpus.open(corpus).accepted()[0]
    (corpus / preview_file(row.id)).unlink()
    assert "--model" in repair(corpus).left[0].detail
    lost = Maker(regenerate=lambda rows: [], fingerprint=HERE)
    assert "radiograph" in repair(corpus, lost).left[0].detail
    assert verify(corpus).faults[0].kind == "missing"


def test_without_its_record_nothing_is_believed(corpus: Path) -> None:
    spoil(corpus / "record.json")
    with pytest.raises(ValueError, match="nothing else knows what it said"):
        repair(corpus)
