"""The documents say what is so: their proofs exist, their words are the product's own."""

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ray_jobs.cli import app
from ray_jobs.recipes import find_recipe, with_settings

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


# ---- what pages tell a person to type ----------------------------------------------------------

PROGRAM = re.compile(r"(?:^|-- |\s)(?:synth-ct|python -m ray_jobs) (.+)")


def blocks_of(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands_of(text: str) -> Iterator[list[str]]:
    """Arguments of each of our commands in a block of shell, without comments and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|\|", line):
            words = shlex.join(shlex.split(part, comments=True))
            if found := PROGRAM.search(words):
                given = shlex.split(found[1])
                yield given[: given.index(">")] if ">" in given else given


COMMANDS = [
    pytest.param(given, id=f"{page.name}: {shlex.join(given)}")
    for page in PAGES
    for block in blocks_of(page, "sh")
    for given in commands_of(block)
]


def parsed(given: list[str], folder: Path) -> dict[str, Any]:
    """As the program reads it, in a folder where each path that is named exists."""
    here = [word.lstrip("/") if word.startswith("/") else word for word in given]
    for word in here:
        if not word.startswith("-") and "=" not in word:
            (folder / word).mkdir(parents=True, exist_ok=True)
    found: Any = typer.main.get_command(app)
    above = None
    while hasattr(found, "commands"):
        name, *here = here
        above = found.make_context(name, [], parent=above, resilient_parsing=True)
        found = found.commands[name]
    context: Any = found.make_context(found.name, here, parent=above)
    return dict(context.params)


@pytest.mark.parametrize("given", COMMANDS)
def test_every_command_in_a_page_is_one_the_program_takes(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = parsed(given, tmp_path)
    recipe = asked.get("recipe")
    if recipe and not str(recipe).endswith(".toml"):
        with_settings(find_recipe(str(recipe)), list(asked.get("settings") or []))


def test_commands_with_an_unknown_option_or_recipe_would_be_found(tmp_path: Path) -> None:
    (given,) = commands_of("PORT=1 synth-ct run tiny --untl generator > a  # comment\n")
    with pytest.raises(typer.TyperException, match="--untl"):
        parsed(given, tmp_path)
    assert len(COMMANDS) > 40


def test_every_name_that_a_page_imports_from_here_is_defined() -> None:
    trees = [ast.parse(b) for page in PAGES for b in blocks_of(page, "python")]
    ours = [
        (node.module, alias.name)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and module_file(node.module)
        for alias in node.names
    ]
    assert len(ours) >= 5
    assert [f"{m}.{n}" for m, n in ours if not defines(m, n)] == []
    assert not defines("pretrain.export", "exports")


def module_file(module: str) -> Path | None:
    stem = HERE.joinpath(*module.split("."))
    found = (stem / "__init__.py", stem.with_suffix(".py"))
    return next((file for file in found if file.is_file()), None)


def defines(module: str, name: str) -> bool:
    file = module_file(module)
    assert file is not None
    words = re.escape(name)
    pattern = rf"^(?:def|class) {words}\b|^{words}\b|^from .* import .*\b{words}\b"
    return module_file(f"{module}.{name}") is not None or bool(
        re.search(pattern, file.read_text(), re.MULTILINE)
    )
