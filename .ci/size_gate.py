"""The size gate: files <= 400 lines, functions <= 50 (`train` <= 120), every signature typed.

    python .ci/size_gate.py synth_ct ray_jobs --also tests

Folders after `--also` are held to the file limit alone. A function's lines are counted without
its docstring. Exit code 1 and one line a finding when a limit is passed.
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_FILE = 400
MAX_FUNCTION = 50
LOOPS = {"train": 120}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def length(node: Function) -> int:
    """Lines from `def` to the end, docstring excluded."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is not None:
        doc = node.body[0]
        lines -= (doc.end_lineno or doc.lineno) - doc.lineno + 1
    return lines


def untyped(node: Function) -> list[str]:
    """Names of parameters without annotation, and `return` where it is missing."""
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    named += [a for a in (arguments.vararg, arguments.kwarg) if a]
    missing = [a.arg for a in named if a.annotation is None and a.arg not in {"self", "cls"}]
    return missing + ([] if node.returns or node.name == "__init__" else ["return"])


def findings(path: Path, file_only: bool) -> Iterator[str]:
    """What passes a limit in one file."""
    text = path.read_text()
    lines = text.count("\n")
    if lines > MAX_FILE:
        yield f"{path}: {lines} lines > {MAX_FILE}"
    if file_only:
        return
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        limit = LOOPS.get(node.name, MAX_FUNCTION)
        where = f"{path}:{node.lineno} {node.name}"
        if length(node) > limit:
            yield f"{where}: {length(node)} lines > {limit}"
        if missing := untyped(node):
            yield f"{where}: untyped {', '.join(missing)}"


def main() -> int:
    """Print every finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--also", nargs="*", type=Path, default=[])
    options = parser.parse_args()
    found = [
        line
        for folders, file_only in ((options.folders, False), (options.also, True))
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
        for line in findings(path, file_only)
    ]
    sys.stdout.write("\n".join(found) + "\n" if found else "sizes within limits\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
