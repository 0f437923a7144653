"""The page of a corpus: whole in one file, quiet on the network, and what it shows is true."""

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Page, browser, chromium
from corpora import SIDE, random_entry
from PIL import Image

from synth_ct.corpus import Corpus, Row
from synth_ct.corpus.layout import make_folders, preview_file, volume_file
from synth_ct.corpus.view import page as page_module
from synth_ct.corpus.view import write_view
from synth_ct.corpus.view.choose import Spread, every_so_many, from_usual_to_odd, oddness
from synth_ct.corpus.view.page import HERE, filled
from synth_ct.kit.durable import sha256_of_file

MANY = 16


@pytest.fixture
def row(tmp_path: Path) -> Row:
    make_folders(tmp_path / "one")
    entry = random_entry(tmp_path / "one", 0)
    assert isinstance(entry, Row)
    return entry


def data_of(page: str) -> dict[str, Any]:
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert block
    said: dict[str, Any] = json.loads(block[1])
    return said


def with_films(corpus: Path, folder: Path) -> dict[str, Path]:
    """Give every row a film on disk, and say so where only this machine reads it."""
    folder.mkdir()
    paths = {}
    for row in Corpus.open(corpus).rows():
        paths[row.id] = folder / f"patient name {row.id}.png"
        noise = np.random.default_rng(0).integers(0, 255, (80, 70), dtype=np.uint8)
        Image.fromarray(noise).save(paths[row.id])
    with (corpus / "sources.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "path"), *paths.items()])
    return paths


def test_volumes_travel_as_they_are_and_rows_as_they_were_recorded(
    corpus: Path, tmp_path: Path
) -> None:
    made = write_view(Corpus.open(corpus), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert made.bytes == (tmp_path / "page.html").stat().st_size
    rows = list(Corpus.open(corpus).rows())
    shown = {one["id"]: one for one in data_of(page)["rows"]}
    assert list(shown) == [row.id for row in rows]
    for row in rows:
        assert shown[row.id]["figures"]["lung_hu"] == row.quality["lung_hu"]
        inlined = re.search(f'id="volume-{row.id}">([^<]*)<', page)
        assert (inlined is not None) == row.accepted
        if inlined:
            file = corpus / volume_file(row.id)
            assert base64.b64decode(inlined[1]) == file.read_bytes()


def test_a_page_is_bounded_and_says_so(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = next(iter(Corpus.open(corpus).accepted()))
    size = (corpus / volume_file(one.id)).stat().st_size
    monkeypatch.setattr(page_module, "VOLUME_BYTES", 5 * size + size // 2)
    made = write_view(Corpus.open(corpus), tmp_path / "page.html", limit=MANY)
    assert (made.rows, made.volumes) == (MANY, 5)
    said = data_of((tmp_path / "page.html").read_text())
    assert (said["made"], len(said["rows"]), len(said["volumes"])) == (27, MANY, 5)


def test_the_policy_lets_only_the_two_scripts_of_the_page_run(corpus: Path, tmp_path: Path) -> None:
    write_view(Corpus.open(corpus), tmp_path / "page.html", limit=2)
    page = (tmp_path / "page.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy[1].startswith("default-src 'none';")
    assert "unsafe" not in policy[1]
    assert "connect-src" not in policy[1], "nothing at all may be fetched"
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    wanted = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts}
    assert len(wanted) == 2
    assert set(re.findall(r"script-src ([^;]*);", policy[1])[0].split()) == {
        f"'sha256-{one}'" for one in wanted
    }


def test_names_of_others_stay_text(corpus: Path, row: Row) -> None:
    evil = "</script><img src=x onerror=alert(1)><!--"
    page = filled({"title": evil, "rows": [{"class": evil}], "evil": "@@NIIVUE@@"}, {})
    assert evil not in page
    assert page.count("<!--") == 0
    assert data_of(page) == {
        "title": evil, "rows": [{"class": evil}], "evil": "@@NIIVUE@@", "volumes": [],
    }  # fmt: skip


def test_radiographs_come_on_request_alone(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = "data:image/png;base64,AAAA"
    monkeypatch.setattr(page_module, "films_of", lambda _, rows: {row.id: film for row in rows})
    opened = Corpus.open(corpus)
    assert write_view(opened, tmp_path / "without.html").radiographs == 0
    assert film not in (tmp_path / "without.html").read_text()
    assert write_view(opened, tmp_path / "with.html", radiographs=True).radiographs == 27


def test_a_file_that_is_not_the_recorded_film_is_not_shown_nor_named(
    corpus: Path, tmp_path: Path
) -> None:
    with_films(corpus, tmp_path / "films")
    made = write_view(Corpus.open(corpus), tmp_path / "page.html", radiographs=True)
    assert made.radiographs == 0
    assert "patient name" not in (tmp_path / "page.html").read_text()


def test_a_film_that_is_the_recorded_one_is_shown_framed(
    corpus: Path, tmp_path: Path, row: Row
) -> None:
    path = with_films(corpus, tmp_path / "films")[row.id]
    known = replace(row, radiograph_sha256=sha256_of_file(path))
    (film,) = page_module.films_of(corpus, [known]).values()
    pixels = Image.open(io.BytesIO(base64.b64decode(film.split(",")[1])))
    assert pixels.size == (128, 128)


def test_without_the_local_table_a_request_for_radiographs_says_so(
    corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="without --radiographs"):
        write_view(Corpus.open(corpus), tmp_path / "page.html", radiographs=True)


def test_a_damaged_picture_is_noticed_and_a_finished_corpus_not_written_into(
    corpus: Path, tmp_path: Path
) -> None:
    opened = Corpus.open(corpus)
    with pytest.raises(ValueError, match="never changes"):
        write_view(opened, corpus / "page.html")
    with pytest.raises(ValueError, match="cannot be written"):
        write_view(opened, tmp_path / "nowhere" / "page.html")
    (corpus / preview_file(opened.accepted()[0].id)).write_bytes(b"")
    with pytest.raises(ValueError, match="is damaged"):
        write_view(opened, tmp_path / "page.html")


def test_rows_are_evenly_spaced_and_volumes_run_from_usual_to_odd(row: Row) -> None:
    rows = [replace(row, id=f"{n:016x}", accepted=n % 2 == 0) for n in range(100)]
    assert [int(one.id, 16) for one in every_so_many(rows, 100, 5)] == [0, 20, 40, 60, 80]
    odd = {one.id: -float(int(one.id, 16)) for one in rows}
    chosen = from_usual_to_odd(rows, odd, 3)
    assert [int(one.id, 16) for one in chosen] == [98, 50, 0]


def test_oddness_is_that_of_the_farthest_figure(row: Row) -> None:
    spreads = {
        "a": Spread(0, 1, 2, 3, 4),
        "b": Spread(0, 5, 10, 15, 20),
        "c": Spread(1, 1, 1, 1, 1),
    }
    measured = replace(row, quality={"a": 3.0, "b": -20.0, "c": 9.0})
    assert oddness(measured, spreads) == 3.0
    assert oddness(replace(row, quality={"a": None}), spreads) == 0.0


def test_the_vendored_viewer_is_the_recorded_one_with_its_licences() -> None:
    vendor = HERE.joinpath("vendor")
    said = vendor.joinpath("niivue.umd.js.sha256").read_text().split()[0]
    assert hashlib.sha256(vendor.joinpath("niivue.umd.js").read_bytes()).hexdigest() == said
    assert "BSD 2-Clause" in vendor.joinpath("LICENSES.txt").read_text()


# ---- in a browser ------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(
    chromium() is None, reason="no Chromium here (Debian: apt-get install chromium)"
)
SHOWN = "document.getElementById('stage').dataset.shown"
CARDS = "document.querySelectorAll('.card').length"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


def choose(tab: Page, control: str, word: str) -> None:
    tab.ask(
        f"{{const it = document.getElementById({control!r}); it.value = {word!r};"
        "it.dispatchEvent(new Event('input', {bubbles: true}))}"
    )


def click(tab: Page, x: float, y: float) -> None:
    for kind in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, x=x, y=y)


@needs_browser
def test_in_a_browser_it_draws_the_volume_filters_and_asks_nobody(
    corpus: Path, tmp_path: Path, tab: Page
) -> None:
    opened = Corpus.open(corpus)
    write_view(opened, tmp_path / "page.html")
    tab.open(tmp_path / "page.html")
    rows = {row.id: row for row in opened.rows()}

    shown = tab.wait(SHOWN)
    dims = "document.getElementById('stage').dataset.dims.split(',').map(Number)"
    assert tuple(tab.ask(dims)) == rows[shown].shape
    assert tab.ask("document.createElement('canvas').getContext('webgl2') !== null")
    box = tab.ask("{const b = document.getElementById('canvas').getBoundingClientRect();"
                  "({x: b.x, y: b.y, width: b.width, height: b.height, scale: 1})}")  # fmt: skip
    drawn = np.asarray(Image.open(io.BytesIO(tab.picture(clip=box))).convert("L"))
    assert drawn.std() > 30
    assert min(half.std() for half in np.array_split(drawn, 2, axis=1)) > 10, "all planes"

    assert tab.ask(CARDS) == 27
    choose(tab, "class", "NORMAL")
    assert tab.ask(CARDS) == sum(row.finding == "NORMAL" for row in rows.values())
    choose(tab, "class", "any")
    choose(tab, "state", "rejected")
    assert tab.ask(CARDS) == 4
    choose(tab, "state", "any")
    for control, word in (("figure", "lung_hu"), ("least", "-800")):
        choose(tab, control, word)
    above = [row for row in rows.values() if (row.quality["lung_hu"] or 0) >= -800]
    assert tab.ask(CARDS) == len(above)
    choose(tab, "sort", "lung_hu")
    ids = [row.id for row in sorted(above, key=lambda row: row.quality["lung_hu"] or 0)]
    assert tab.ask("[...document.querySelectorAll('.card')].map(card => card.dataset.id)") == ids

    kept = next(row for row in above if row.accepted and row.id != shown)
    tab.ask(f"document.querySelector('[data-id=\"{kept.id}\"]').focus()")
    tab.press("Enter")
    tab.wait(f"{SHOWN} === {kept.id!r} && !document.getElementById('canvas').focus()")
    tab.press("ArrowRight")
    said = tab.wait("document.getElementById('where').textContent")
    x, y, z, hu = map(int, re.findall(r"-?\d+", said))
    assert hu == opened.volume(kept).array_XYZ[x, y, z]

    click(tab, box["x"] + 0.2 * box["width"], box["y"] + 0.7 * box["height"])  # axial, at the left
    tab.wait(f"document.getElementById('where').textContent !== {said!r}")
    right = f"document.getElementById('where').textContent.match(/\\d+/)[0] > {SIDE // 2}"
    assert tab.ask(right), "the patient's"

    tab.ask(f"document.querySelector('[data-id=\"{kept.id}\"]').focus()")
    tab.press("ArrowRight")
    assert tab.ask("document.activeElement.className") == "card"
    assert tab.ask("document.activeElement.dataset.id") != kept.id

    asked = [address for address in tab.requests if not address.startswith("data:")]
    assert [Path(address).name for address in asked] == ["page.html"]
    assert tab.errors == []


@needs_browser
def test_the_policy_holds_in_the_browser(corpus: Path, tmp_path: Path, tab: Page) -> None:
    write_view(Corpus.open(corpus), tmp_path / "page.html", limit=1)
    page = (tmp_path / "page.html").read_text()
    evil = "<script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"
    (tmp_path / "evil.html").write_text(page.replace("<header>", f"{evil}<header>"))
    tab.open(tmp_path / "evil.html")
    assert tab.ask("window.broken") is None
    tab.errors.clear()


@needs_browser
def test_on_a_phone_nothing_is_wider_than_the_screen(
    corpus: Path, tmp_path: Path, tab: Page
) -> None:
    write_view(Corpus.open(corpus), tmp_path / "page.html", limit=6)
    tab.open(tmp_path / "page.html", width=390, height=844)
    tab.wait(SHOWN)
    assert tab.ask("document.documentElement.scrollWidth") <= 390
