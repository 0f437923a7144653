"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Workers = Annotated[int, typer.Option(min=0, help="Worker processes; 0 works in this one.")]
Root = Annotated[Path | None, typer.Option(help="Where the artifacts live [runs/RECIPE].")]
Setting = Annotated[list[str] | None, typer.Option("--set", metavar="K=V", help="Override: a.b=1.")]
Share = Annotated[float, typer.Option(help="Share set aside above which the exit code is 4.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Exit code 3 if anything at all was set aside.")
]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")]
CORES = len(os.sched_getaffinity(0))
