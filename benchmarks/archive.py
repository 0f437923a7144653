"""The whole of ChestXray2017 through a generator, by the command that anyone would use.

    .venv/bin/python benchmarks/archive.py RADIOGRAPHS MODEL OUT [--write docs/results/archive.md]

Runs `synth-ct generate` with two actors, as a program of its own, and watches it from outside:
items done, and the memory of all its processes. If either is stopped, the same line goes on; what
was watched before is kept beside OUT. A finished OUT is only examined.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import SimpleITK

from synth_ct.corpus import Corpus
from synth_ct.corpus.layout import RECEIPTS, volume_file
from synth_ct.corpus.receipts import finished_entries
from synth_ct.corpus.row import Row
from synth_ct.kit.artifact import RECORD, partial_of

ACTORS, LOOK_EVERY_S, SAMPLE = 2, 5.0, 20
IMAGES = {".jpeg", ".jpg", ".png"}


class Look(NamedTuple):
    """What is seen at one moment: of which run, how long after it began."""

    run: int
    seconds: float
    items: int
    mib: float


# ---- the run, watched --------------------------------------------------------------------------


def below(pid: int) -> list[int]:
    """A process, its children, and theirs."""
    try:
        lists = [p.read_text() for p in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []  # it has just ended
    return [pid, *(p for words in lists for child in words.split() for p in below(int(child)))]


def memory_mib(pid: int) -> float:
    """Of a whole tree of processes; what several share counts once."""
    kib = 0
    for each in below(pid):
        try:
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
        except OSError:
            continue
        kib += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return kib / 1024


def items_done(workspace: Path) -> int:
    """Lines in all receipts; while a run begins, some may be there twice."""
    done = 0
    for path in (workspace / RECEIPTS).glob("*.jsonl"):
        try:
            done += path.read_bytes().count(b"\n")
        except FileNotFoundError:
            continue
    return done


def run_watched(command: list[str], out: Path, seen: Path) -> None:
    """Run it to its end; a line for every look."""
    run = max((look.run for look in looks(seen)), default=0) + 1
    begun = time.monotonic()
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        while process.poll() is None:
            memory = memory_mib(process.pid)
            row = Look(run, time.monotonic() - begun, items_done(partial_of(out)), memory)
            with seen.open("a") as file:
                file.write(f"{json.dumps(row._asdict())}\n")
            time.sleep(LOOK_EVERY_S)
    if process.returncode not in (0, 4):  # 4: much quarantine, which the page tells
        sys.exit(f"generate ended with {process.returncode}; run the same command again")


def looks(seen: Path) -> list[Look]:
    """All that was seen, of all runs."""
    if not seen.exists():
        return []
    return [Look(**json.loads(line)) for line in seen.read_text().splitlines()]


# ---- what came of it ---------------------------------------------------------------------------


def steady(run: Sequence[Look]) -> list[Look]:
    """Without the first and the last tenth of its items: starting, and ending."""
    first, last = run[0].items, run[-1].items
    low, high = first + 0.1 * (last - first), first + 0.9 * (last - first)
    return [look for look in run if low <= look.items <= high and look.seconds > 60]


def runs_of(all_looks: Sequence[Look]) -> list[list[Look]]:
    """Runs that did something, each from its start to its end."""
    numbers = sorted({look.run for look in all_looks})
    runs = [_rising([look for look in all_looks if look.run == n]) for n in numbers]
    return [run for run in runs if len(steady(run)) > 5]


def _rising(run: Sequence[Look]) -> list[Look]:
    """Until the workspace is renamed to its final name."""
    most = max(look.items for look in run)
    last = max(number for number, look in enumerate(run) if look.items == most)
    return list(run[: last + 1])


def slope(run: Sequence[Look]) -> float:
    """MiB more for every thousand items, by least squares over the steady part."""
    part = steady(run)
    return float(np.polyfit([look.items / 1000 for look in part], [p.mib for p in part], 1)[0])


def pace(run: Sequence[Look]) -> float:
    """Items a second over the steady part."""
    part = steady(run)
    return (part[-1].items - part[0].items) / (part[-1].seconds - part[0].seconds)


def same_geometry(file: Path) -> bool:
    """Whether SimpleITK sees the grid that nibabel sees, and the same voxels."""
    theirs, ours = SimpleITK.ReadImage(str(file)), nib.load(file)
    turn = np.diag([-1.0, -1.0, 1.0])  # ITK counts to the left and to the back
    direction = np.array(theirs.GetDirection()).reshape(3, 3) * theirs.GetSpacing()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ direction, turn @ np.array(theirs.GetOrigin())
    voxels = SimpleITK.GetArrayFromImage(theirs).transpose(2, 1, 0)
    return bool(
        np.allclose(affine, ours.affine, atol=1e-4)
        and np.array_equal(voxels, np.asarray(ours.dataobj))
    )


def examined(radiographs: Path, out: Path) -> dict[str, Any]:
    """Every file accounted for, every volume another, a sample opened by another reader."""
    about = Corpus.open(out).about
    rows = [entry for entry in finished_entries(out) if isinstance(entry, Row)]
    kept = [row for row in rows if row.accepted]
    picked = np.random.default_rng(0).choice(len(kept), min(SAMPLE, len(kept)), replace=False)
    return {
        "files": sum(path.suffix.lower() in IMAGES for path in radiographs.rglob("*")),
        "counts": about.counts,
        "codes": about.codes,
        "digest": about.digest,
        "noted": sum(row.reason != "" for row in kept),
        "distinct": len({row.voxel_sha256 for row in kept}),
        "same": sum(same_geometry(out / volume_file(kept[i].id)) for i in picked),
        "opened": len(picked),
        "mib": sum((out / volume_file(row.id)).stat().st_size for row in kept) / 2**20,
        "shape": "x".join(map(str, about.shape)),
    }


# ---- the report --------------------------------------------------------------------------------


def run_lines(runs: Sequence[Sequence[Look]]) -> str:
    """A line for each run."""
    lines = []
    for run in runs:
        made = run[-1].items - run[0].items
        peak = max(look.mib for look in run)
        cells = (f"{run[-1].seconds / 60:.1f}", f"{pace(run):.1f}", f"{peak:.0f}")
        growth = f"{slope(run):+.1f}" if made > 1000 else "too short"
        middle = np.median([look.mib for look in steady(run)])
        lines.append(f"| {made} | {' | '.join(cells)} | {middle:.0f} | {growth} |")
    return "\n".join(lines)


def report(found: dict[str, Any], runs: Sequence[Sequence[Look]]) -> str:
    """The page."""
    counts = found["counts"]
    accounted = counts.committed + counts.rejected + counts.quarantined
    return TEMPLATE.format(
        **{name: value for name, value in found.items() if name not in ("counts", "codes")},
        **counts.model_dump(),
        codes=", ".join(f"{n} {code}" for code, n in found["codes"].items()) or "none",
        accounted=accounted,
        runs=run_lines(runs),
        actors=ACTORS,
        every=LOOK_EVERY_S,
        today=date.today(),
        cores=os.cpu_count(),
    )


TEMPLATE = """# The whole archive

All {files} radiographs of ChestXray2017, as 224-pixel JPEG, through the generator of the recipe
`tiny` (trained on phantoms: its volumes are {shape} and say nothing of quality), with
`synth-ct generate --actors {actors} --gate record`.

| what | count |
|---|---|
| image files in the archive | {files} |
| accounted for | {accounted} |
| volumes | {committed} |
| of these, with a quality check noted | {noted} |
| rejected | {rejected} |
| set aside | {quarantined} ({codes}) |
| different volumes, by the hash of their voxels | {distinct} |
| of {opened} opened in SimpleITK: geometry and voxels as nibabel's | {same} |

Size of the volumes: {mib:.0f} MiB. Digest `{digest}`.

| items made | minutes | items/s, steady | memory, MiB: most | median | growth a thousand items |
|---|---|---|---|---|---|
{runs}

A line for each run: a stopped one goes on in the next. Memory is that of all processes of the run,
Ray's own included, every {every:.0f} s, what several share counted once; growth is a straight
line's through the steady part, without the first and the last tenth of the items.

Recipe: `.venv/bin/python benchmarks/archive.py RADIOGRAPHS MODEL OUT --write
docs/results/archive.md`, {today}, a machine of {cores} cores that others used at the same time,
CPU only; seed 0.
"""


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("radiographs", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    seen = asked.out.with_name(f"{asked.out.name}.seen.jsonl")
    if not (asked.out / RECORD).exists():
        command = [sys.executable, "-m", "ray_jobs", "generate", str(asked.radiographs)]
        command += [str(asked.out), "--model", str(asked.model), "--actors", str(ACTORS)]
        run_watched([*command, "--gate", "record", "--json"], asked.out, seen)
    page = report(examined(asked.radiographs, asked.out), runs_of(looks(seen)))
    print(page)
    if asked.write:
        asked.write.write_text(page)


if __name__ == "__main__":
    main()
