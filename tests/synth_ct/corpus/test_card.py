"""The card says what the manifest says, to people and to the Hub, whatever others named things."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from corpora import ABOUT, make_corpus, random_entry
from PIL import Image

from synth_ct.corpus import Corpus, Row
from synth_ct.corpus.about import About, Source
from synth_ct.corpus.card import HISTOGRAMS, SHEET, code, plain, write_card
from synth_ct.corpus.card_pictures import SHOWN, evenly
from synth_ct.corpus.layout import make_folders
from synth_ct.corpus.manifest import write_manifest
from synth_ct.corpus.tally import Sample, distinct, tally
from synth_ct.kit.volume import Volume


@pytest.fixture
def row(tmp_path: Path) -> Row:
    make_folders(tmp_path)
    entry = random_entry(tmp_path, 0)
    assert isinstance(entry, Row)
    return entry


def card_of(folder: Path, rows: Iterable[Row], about: About = ABOUT) -> str:
    folder.mkdir(exist_ok=True)
    write_manifest(folder, (replace(row, preview_sha256="") for row in rows))
    write_card(folder, about)
    return (folder / "README.md").read_text()


def cells(card: str, first: str) -> list[str]:
    """The other cells of the table row that begins so."""
    line = next(line for line in card.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_every_item_is_accounted_for(corpus: Path) -> None:
    card = (corpus / "README.md").read_text()
    assert "SYNTHETIC" in card.split("\n## ", 1)[0]
    assert [cells(card, n)[0] for n in ("total", "committed", "rejected", "quarantined")] == [
        "30", "23", "4", "3",
    ]  # fmt: skip
    assert cells(card, "`E_IMG_TRUNCATED`") == ["3"]
    assert cells(card, "`lungs`") == ["4", "0"]
    assert cells(card, "16 x 16 x 16") == ["20 x 20 x 20", "23"]
    assert "27 volumes were made, from 27 radiographs of 5 patients" in card
    assert Corpus.open(corpus).about.digest in card


def test_acceptance_is_counted_for_each_class(corpus: Path) -> None:
    rows = [row for row in Corpus.open(corpus).rows() if row.finding == "NORMAL"]
    passed = sum(row.accepted for row in rows)
    share = f"{100 * passed / len(rows):.1f} %"
    card = (corpus / "README.md").read_text()
    assert cells(card, "NORMAL") == [str(len(rows)), str(passed), str(passed), share]


def test_with_gate_record_a_kept_volume_that_failed_is_not_counted_as_passed(
    tmp_path: Path, row: Row
) -> None:
    card = card_of(tmp_path / "c", [replace(row, reason="fat_hu")])
    assert cells(card, "PNEUMONIA/virus") == ["1", "1", "0", "0.0 %"]
    assert cells(card, "`fat_hu`") == (["0", "1"] if "first check" in card else [])


def test_percentiles_are_those_of_volumes_that_passed(corpus: Path) -> None:
    values = [r.quality["lung_hu"] for r in Corpus.open(corpus).rows() if not r.reason]
    card = (corpus / "README.md").read_text()
    assert cells(card, "`lung_hu`")[3] == f"{np.median(values):.3g}"  # type: ignore[arg-type]
    assert cells(card, "`fat_hu`")[-1] == "27", "never measured"


def test_the_hub_can_read_the_front_matter(corpus: Path) -> None:
    _, front, _ = (corpus / "README.md").read_text().split("---\n", 2)
    said = yaml.safe_load(front)
    assert said["license"] == "apache-2.0"
    assert {"synthetic", "ct", "chest"} <= set(said["tags"])
    assert said["size_categories"] == ["n<1K"]
    assert (corpus / said["configs"][0]["data_files"]).exists()


def test_sources_under_several_licences_are_not_given_one(tmp_path: Path, row: Row) -> None:
    films = Source(role="radiographs", title="films of children", licence="CC BY 4.0")
    ct = Source(role="training CT", title="adults", licence="CC BY 3.0", citation="A. N. Other, 1")
    card = card_of(tmp_path / "c", [row], ABOUT.model_copy(update={"sources": (films, ct)}))
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "other"
    assert "licence CC BY 3.0. A. N. Other, 1." in card
    assert "## The age gap" in card


def test_no_age_gap_is_claimed_where_no_source_speaks_of_children(corpus: Path) -> None:
    assert "age gap" not in (corpus / "README.md").read_text()


def test_the_lines_that_open_it_run(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (corpus / "README.md").read_text()
    lines = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert lines
    assert len(lines[1].strip().splitlines()) == 3
    monkeypatch.chdir(corpus)
    names: dict[str, list[Volume]] = {}
    exec(lines[1], names)
    assert len(names["volumes"]) == 4


def test_pictures_show_volumes_and_histograms(corpus: Path) -> None:
    card = (corpus / "README.md").read_text()
    for name in re.findall(r"!\[[^]]*\]\((.*?)\)", card):
        pixels = np.asarray(Image.open(corpus / name).convert("L"))
        assert pixels.std() > 5, name
    assert {SHEET, HISTOGRAMS} == set(re.findall(r"\]\((card/.*?)\)", card))


def test_a_corpus_without_figures_pictures_or_one_shape_has_a_card(
    tmp_path: Path, row: Row
) -> None:
    adopted = ABOUT.model_copy(update={"kind": "adopted", "shape": (), "spacing_mm": ()})
    bare = replace(row, quality={}, out_of_distribution=None, patient="")
    rows = [replace(bare, id=f"{n:016x}", shape=(n + 8, 9, 10)) for n in range(8)]
    card = card_of(tmp_path / "c", rows, adopted)
    assert "![" not in card
    assert "None were measured" in card
    assert cells(card, "3 other grids") == ["", "3"]
    assert "Made elsewhere" in card
    assert "patients" not in card.split("volumes were made")[1].split("\n")[0]


def test_an_empty_corpus_has_a_card(tmp_path: Path) -> None:
    assert cells(card_of(tmp_path / "c", []), "total")[0] == "0"


def test_names_of_others_are_only_text(tmp_path: Path, row: Row) -> None:
    evil = "a|b <script>x</script>\n\n# head [l](http://x) `c`"
    source = Source(role="radiographs", title=evil, licence=evil, citation=evil, cautions=(evil,))
    about = ABOUT.model_copy(update={"sources": (source,), "generator": evil, "trained_on": evil})
    odd = replace(row, finding=evil, reason=evil, quality={evil: 1.0})
    card = card_of(tmp_path / "c", [odd], about)
    _, front, body = card.split("---\n", 2)
    text = re.sub(r"`[^`\n]*`|```.*?```", "", body, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<script|^# head|(?<!\\)\[l", text, re.MULTILINE)
    yaml.safe_load(front)
    head, *rows = re.findall(r"^\|.*\|$", card.split("## Acceptance")[1].split("\n\n")[2], re.M)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in (head, *rows)} == {6}
    assert plain("*a*") == r"\*a\*"
    assert code("a`|b") == "`a'/b`"


def test_the_sheet_takes_volumes_at_even_distances(row: Row) -> None:
    rows = [replace(row, id=f"{n:016x}", accepted=n % 3 > 0) for n in range(300)]
    chosen = tally(rows, places=evenly(200)).picked
    assert len(chosen) == SHOWN
    assert all(one.accepted for one in chosen)
    steps = np.diff([int(one.id, 16) for one in chosen])
    assert steps.min() >= 11
    assert steps.max() <= 15
    assert len(tally(rows[:9], places=evenly(6)).picked) == 6


def test_a_sample_of_many_values_is_fair_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth_ct.corpus.tally.KEPT_VALUES", 64)
    sample = Sample()
    for n in range(200):
        sample.add(float(n))
    assert sample.seen == 200
    assert len(sample.values) < 64
    assert set(np.diff(sample.values)) == {4.0}


def test_memory_does_not_grow_with_the_rows(row: Row) -> None:
    import tracemalloc

    def rows(count: int) -> Iterator[Row]:
        return (replace(row, id=f"{n:016x}", quality={"x": float(n)}) for n in range(count))

    tracemalloc.start()
    tally(rows(3_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


def test_distinct_values_do_not_count_the_empty_one(tmp_path: Path, row: Row) -> None:
    patients = ("", "a", "a", "b")
    rows = [replace(row, id=f"{n:016x}", patient=p) for n, p in enumerate(patients)]
    write_manifest(tmp_path, rows)
    assert distinct(tmp_path, "patient") == 2


def test_the_same_corpus_gets_the_same_card(tmp_path: Path) -> None:
    for name in "ab":
        make_corpus(tmp_path / name, range(12))
    for file in ("README.md", SHEET, HISTOGRAMS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
