"""The report in a browser: whole on a phone, in print and in the dark, and it asks nobody."""

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import Page, browser, chromium
from studies import gap, whole_study

from reports.page import write_report

pytestmark = pytest.mark.skipif(
    chromium() is None, reason="no Chromium here (Debian: apt-get install chromium)"
)
WIDEST = "document.documentElement.scrollWidth"
OPEN = "document.querySelectorAll('details').forEach(one => one.open = true)"
TALLEST_LETTERS = """Math.min(...[...document.querySelectorAll('svg text')].map(
    one => one.getBoundingClientRect().height))"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(whole_study(), folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


def test_nothing_is_wider_than_the_screen_be_it_a_phones(report: Path, tab: Page) -> None:
    tab.open(report, width=390, height=844)
    assert tab.ask(WIDEST) <= 390
    tab.ask(OPEN)
    assert tab.ask(WIDEST) <= 390, "nor in what is folded"
    assert tab.ask(TALLEST_LETTERS) > 11, "letters in figures are letters for a phone"
    for width in (768, 1000):
        tab.open(report, width=width)
        tab.ask(OPEN)
        assert tab.ask(WIDEST) <= width


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every arm there is and some of one's own, on data with a long name."""
    base, folder = whole_study(), tmp_path_factory.mktemp("crowded")
    arms = ("real", "synthetic", "primitives", "real_degraded", "drr", "prior_only", "mixed",
            "volumes_of_our_own_hospital")  # fmt: skip
    gaps = [gap(arm, dataset="abdomens_of_our_own_hospital", at=(-12.5, -15.5, -10.5), headline=h)
            for arm in arms for h in (True, False)]  # fmt: skip
    organs = [replace(cell, arm=arm) for cell in base.comparison.organs for arm in arms]
    comparison = replace(base.comparison, gaps=tuple(gaps), organs=tuple(organs))
    write_report(replace(base, comparison=comparison), folder)
    return folder / "report.html"


@pytest.mark.parametrize("which", ["report", "crowded"])
def test_no_drawing_has_words_outside_it(
    which: str, request: pytest.FixtureRequest, tab: Page
) -> None:
    tab.open(request.getfixturevalue(which), width=390, height=844)
    assert tab.ask(WIDEST) <= 390
    outside = """[...document.querySelectorAll('svg text')].filter(one => {
        const [a, b] = [one.getBoundingClientRect(), one.ownerSVGElement.getBoundingClientRect()];
        return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1;
    }).map(one => one.textContent)"""
    assert tab.ask(outside) == []


def test_no_column_of_an_organ_table_is_hidden_on_a_desk(crowded: Path, tab: Page) -> None:
    tab.open(crowded, width=1100)
    hidden = """[...document.querySelectorAll('.heat')].filter(one =>
        one.scrollWidth > one.parentElement.clientWidth + 1).length"""
    assert tab.ask(hidden) == 0


def test_a_volume_is_large_enough_to_be_seen(report: Path, tab: Page) -> None:
    narrowest = """Math.min(...[...document.querySelectorAll('.pair img:first-child')].map(
        one => one.getBoundingClientRect().width))"""
    for screen, width in ((1200, 500), (390, 320)):
        tab.open(report, width=screen)
        tab.ask(OPEN)
        assert tab.ask(narrowest) > width


def test_it_asks_nobody_and_its_own_policy_lets_its_style_pass(report: Path, tab: Page) -> None:
    tab.requests.clear()
    tab.open(report)
    assert tab.ask("getComputedStyle(document.querySelector('.answer')).borderTopWidth") == "2px"
    asked = [address for address in tab.requests if not address.startswith("data:")]
    assert [Path(address).name for address in asked] == ["report.html"]
    assert tab.errors == []
    shown = "[...document.images].every(one => one.naturalWidth > 0)"
    assert tab.ask(shown)


def test_the_policy_holds(report: Path, tab: Page) -> None:
    evil = "<script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"
    page = report.with_name("evil.html")
    page.write_text(report.read_text().replace("<h1>", f"{evil}<h1>"))
    tab.open(page)
    assert tab.ask("window.broken") is None
    tab.errors.clear()


def test_it_can_be_printed_and_read_in_the_dark(report: Path, tab: Page) -> None:
    tab.open(report)
    pdf = base64.b64decode(tab.call("Page.printToPDF", printBackground=True)["data"])
    assert pdf.startswith(b"%PDF")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = tab.ask(ground)
    tab.call(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-color-scheme", "value": "dark"}],
    )
    assert tab.ask(ground) != light
    tab.call("Emulation.setEmulatedMedia", features=[])
