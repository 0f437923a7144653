"""A corpus of 100,000 items: how long it takes to start again and to finish, in how much memory.

    .venv/bin/python benchmarks/corpus_scale.py [--write docs/results/corpus_scale.md]

Receipts of 40 writers, with twenty quality figures a row, and an empty volume and a small preview
for every one that was kept; each size is measured in a process of its own, step by step.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tables import put_table

from synth_ct.corpus import Volumes
from synth_ct.corpus import open as open_corpus
from synth_ct.corpus.about import About, Source
from synth_ct.corpus.finish import finish
from synth_ct.corpus.layout import RECEIPTS, make_folders, preview_file, volume_file
from synth_ct.corpus.manifest import read_manifest, write_manifest
from synth_ct.corpus.receipts import fold
from synth_ct.corpus.row import Entry, Quarantined, Row, digest_of, line_of
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.durable import sha256_of

SIZES, WRITERS, SEED = (10_000, 50_000, 100_000), 40, 0
MEBIBYTE = 2**20
FIGURES = [f"figure_of_quality_{number}" for number in range(20)]
ABOUT = About(
    kind="generated",
    evidence="phantom",
    generator="fake",
    model="m" * 16,
    trained_on="nothing",
    sources=(Source(role="radiographs", title="nothing"),),
)
STEPS = {
    "fold": "receipts of 40 writers into one",
    "again": "the scan of a restart: all receipts, already in one",
    "manifest": "manifest",
    "digest": "digest",
    "finish": "`finish`: manifest, digest, description and card",
    "open": "`corpus.open`",
    "accepted": "list the accepted, row by row",
    "volumes": "torch dataset of the training split",
}


# ---- fake items --------------------------------------------------------------------------------


def fake_entry(number: int, figures: list[float]) -> Entry:
    """Every ninth is unreadable, every seventh rejected."""
    sha = sha256_of(f"film {number}".encode())
    patient = f"p{sha256_of(str(number // 3).encode())[:16]}"
    if number % 9 == 8:
        return Quarantined(
            id=sha[:16],
            radiograph_sha256=sha,
            patient=patient,
            finding="NORMAL",
            code="E_IMG_TRUNCATED",
            cause="the file ends early; the lower half of the film is missing",
            remedy="fetch the file again",
        )
    accepted = number % 7 != 6
    return Row(
        id=sha[:16],
        radiograph_sha256=sha,
        patient=patient,
        finding="PNEUMONIA/virus",
        sample=0,
        seed=int(sha[:15], 16),
        model="m" * 16,
        sampler="dpmpp_2m/25",
        fingerprint="f" * 16,
        accepted=accepted,
        reason="" if accepted else "lungs",
        file_sha256=sha if accepted else "",
        voxel_sha256=sha[::-1] if accepted else "",
        preview_sha256=sha if accepted else "",
        shape=(128, 128, 128),
        spacing_mm=(2.5, 2.5, 2.5),
        out_of_distribution=figures[0],
        quality=dict(zip(FIGURES, figures, strict=True)),
    )


def small_picture() -> bytes:
    """A preview that the card can show."""
    file = io.BytesIO()
    Image.new("L", (48, 16)).save(file, "PNG")
    return file.getvalue()


def write_receipts(corpus: Path, items: int) -> None:
    """As writers leave them, without waiting for the disk line by line."""
    random = np.random.default_rng(SEED)
    picture = small_picture()
    files = [(corpus / RECEIPTS / f"{n}-fake.jsonl").open("w") for n in range(WRITERS)]
    for number in range(items):
        entry = fake_entry(number, random.normal(size=len(FIGURES)).tolist())
        files[number % WRITERS].write(line_of(entry) + "\n")
        if isinstance(entry, Row) and entry.accepted:
            (corpus / volume_file(entry.id)).touch()
            (corpus / preview_file(entry.id)).write_bytes(picture)
    for file in files:
        file.close()


# ---- one size, in a process of its own ---------------------------------------------------------


def peak_bytes() -> int:
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(folder: Path, items: int) -> dict[str, Any]:
    """Seconds of each step, and the memory beyond what was held before the first."""
    seconds: dict[str, float] = {}
    peaks: dict[str, float] = {}

    def step(name: str, run: Callable[[], Any]) -> Any:
        begun = time.process_time()
        found = run()
        seconds[name] = time.process_time() - begun
        peaks[name] = (peak_bytes() - before) / MEBIBYTE
        return found

    with publish(folder, Record(kind="corpus", recipe={"items": items})) as corpus:
        before = peak_bytes()
        step("fold", lambda: len(fold(corpus)))
        book = step("again", lambda: fold(corpus))
        step("manifest", lambda: write_manifest(corpus, book.rows()))
        step("digest", lambda: digest_of(read_manifest(corpus)))
        step("finish", lambda: finish(corpus, book, ABOUT))
    opened = step("open", lambda: open_corpus(folder))
    kept = step("accepted", lambda: sum(row.accepted for row in opened.rows()))
    training = step("volumes", lambda: len(Volumes(opened, "train", cache=None)))
    folders = Counter(path.parent for path in folder.rglob("*") if path.is_file())
    return {
        "items": items,
        "kept": kept,
        "training": training,
        "seconds": seconds,
        "peaks": peaks,
        "largest": max(folders.values()),
    }


def measured_apart(items: int, folder: Path) -> dict[str, Any]:
    """Make the receipts here and measure in a fresh process."""
    make_folders(folder.with_name(f"{folder.name}.partial"))
    write_receipts(folder.with_name(f"{folder.name}.partial"), items)
    command = [sys.executable, __file__, "--only", str(items), "--folder", str(folder)]
    found: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    )
    return found


# ---- the report --------------------------------------------------------------------------------


def table(sizes: list[dict[str, Any]]) -> list[str]:
    """One row a step; for each size its seconds and the peak memory so far."""
    titles = [f"{size['items']:,}: s | MiB" for size in sizes]
    rows = [f"| step | {' | '.join(titles)} |", f"|---|{'---|---|' * len(sizes)}"]
    for name, title in STEPS.items():
        cells = [f"{size['seconds'][name]:.2f} | {size['peaks'][name]:.0f}" for size in sizes]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return rows


def goals(largest: dict[str, Any]) -> list[str]:
    """What was asked of 100,000 items, and what was found."""
    seconds = largest["seconds"]
    whole = sum(seconds[name] for name in ("again", "manifest", "digest", "open", "accepted"))
    return [
        "| goal | found |",
        "|---|---|",
        f"| restart scan and manifest of 100,000 in less than 60 s | {whole:.1f} s, all steps |",
        f"| no folder over 1,000 files | {largest['largest']} in the fullest |",
    ]


def main() -> None:
    """Measure, print, and write into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--only", type=int, help="measure one size here (used by itself)")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.only:
        print(json.dumps(measured(asked.folder, asked.only)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        sizes = [measured_apart(items, Path(temporary) / f"c{items}") for items in SIZES]
    tables = [table(sizes), goals(sizes[-1])]
    for lines in tables:
        print("\n".join(lines), end="\n\n")
    if asked.write:
        for lines in tables:
            put_table(asked.write, lines)
        print(f"{date.today()}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
