"""The documents say what is so: their proofs exist, their words are the product's own."""

import re
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
STATES = {"held", "differs", "open"}


def fidelity_rows() -> list[list[str]]:
    lines = (HERE / "docs" / "fidelity.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1:]]


def test_every_row_of_the_fidelity_table_is_complete_and_named_once() -> None:
    rows = fidelity_rows()
    assert {len(row) for row in rows} == {9}
    assert len({row[0] for row in rows}) == len(rows)
    assert {row[7] for row in rows} <= STATES


@pytest.mark.parametrize("row", [r for r in fidelity_rows() if r[7] != "open"], ids=lambda r: r[0])
def test_what_is_held_or_differs_has_a_proof_that_exists(row: list[str]) -> None:
    assert (HERE / row[8].strip("`")).is_file(), row[8]


def test_no_tracked_file_names_a_machine_or_a_package_host() -> None:
    """Paths of somebody's machine and registry hosts have no place in a repository."""
    hosts = [".".join(p) for p in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"))]
    named = "|".join(map(re.escape, hosts))
    pattern = re.compile(named + r"|(?<![\w.-])/(?:root|home)/\w")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=HERE, capture_output=True, text=True, check=True
    )
    texts = [p for p in listed.stdout.splitlines() if (HERE / p).suffix not in {".png", ".jpg"}]
    read = {p: (HERE / p).read_text() for p in texts if (HERE / p).is_file()}
    assert [p for p, text in read.items() if pattern.search(text)] == []


PAGES = [HERE / "README.md", *sorted((HERE / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HERE)))
def test_every_file_a_page_points_to_exists(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text())
    found = {t: page.parent / t for t in targets}
    assert [t for t, file in found.items() if not file.exists()] == []


def test_pages_do_point_to_others() -> None:
    linking = [page.name for page in PAGES if re.search(r"\]\((?!http)[\w/.]+", page.read_text())]
    assert {"README.md", "generator.md"} <= set(linking)


def test_every_quarantine_code_is_explained() -> None:
    page = (HERE / "docs" / "quarantine.md").read_text()
    explained = set(re.findall(r"`([\w<>]+)`", page))
    code = "\n".join(path.read_text() for path in (HERE / "synth_ct").rglob("*.py"))
    literal = set(re.findall(r'"(E_[A-Z0-9_]+|duplicate)"', code))
    shared = {f"E_<C>_{name}" for name in re.findall(r'f"E_\{container\}_(\w+)"', code)}
    general = {re.sub(r"^E_(NII|NRRD|MHA)_", "E_<C>_", name) for name in explained}
    unexplained = {
        name
        for name in literal | shared
        if name not in explained | general
        and re.sub(r"^E_(NII|NRRD|MHA)_", "E_<C>_", name) not in explained
    }
    assert unexplained == set()
