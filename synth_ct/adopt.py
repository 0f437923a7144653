"""Somebody else's synthetic CT becomes a corpus: read distrustfully, written anew, accounted for.

The files are read as `ingest folder` reads them. What they say of grid and HU is kept, what their
headers say otherwise is not. Nothing of ours knows how they were made, so there are no seeds, no
radiographs and no verdicts on quality.
"""

import csv
import io
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from synth_ct.cohort.case import Case, Found
from synth_ct.cohort.gather import DUPLICATE, listing
from synth_ct.cohort.pool import read_all
from synth_ct.corpus.about import About, Source
from synth_ct.corpus.finish import finish
from synth_ct.corpus.layout import (
    RECEIPTS,
    SOURCES,
    make_folders,
    preview_file,
    quarantine_file,
    volume_file,
)
from synth_ct.corpus.receipts import Receipts, fold
from synth_ct.corpus.row import Entry, Quarantined, Row, entry_of, line_of, voxel_sha256
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.durable import sha256_of, write_bytes, write_text
from synth_ct.kit.effort import Effort
from synth_ct.kit.quarantine import SetAside, write_report
from synth_ct.kit.volume import save, spacing_mm
from synth_ct.preview import preview
from synth_ct.sources import folder

READ = "read"
"""Rows of volumes that were read, until their patients are known."""
AS_GIVEN = "as given"
ELSEWHERE = "said in quarantine.json beside the manifest, with the file's name"


def adopt(source: Path, out: Path, generator: str, licence: str, effort: Effort) -> About:
    """Make the corpus `out` of the volumes in a folder, which `generator` made."""
    if out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{out} lies inside {source}; choose a place outside")
    findings = folder.find(source)
    if not findings.found:
        raise ValueError(f"no volume is in {source}; give the folder that holds the .nii.gz files")
    found = sorted(findings.found, key=lambda item: item.name)
    wanted = Record(
        kind="corpus",
        recipe={"adopted from": generator, "licence": licence, "listing": listing(findings)},
    )
    with publish(out, wanted) as workspace:
        _begin(workspace)
        kept, set_aside = _read(found, workspace, effort, generator)
        set_aside += findings.set_aside
        receipts = Receipts(workspace)
        entries = [*_with_patients(kept), *(_quarantined(row) for row in set_aside)]
        for entry in entries:
            if isinstance(entry, Quarantined):
                write_text(workspace / quarantine_file(entry.id), line_of(entry))
        receipts.append(entries)
        write_report(workspace, set_aside)
        _write_sources(kept, workspace)
        shutil.rmtree(workspace / READ)
        return finish(workspace, fold(workspace), _about(generator, licence, kept))


def _begin(workspace: Path) -> None:
    """An adoption that was stopped is read again: nothing was computed that would be lost."""
    for begun in (RECEIPTS, READ, "volumes", "previews", "quarantine"):
        shutil.rmtree(workspace / begun, ignore_errors=True)
    make_folders(workspace)
    (workspace / READ).mkdir()


# ---- reading -----------------------------------------------------------------------------------

Kept = list[tuple[Found, Row]]


def _read(
    found: Sequence[Found], workspace: Path, effort: Effort, generator: str
) -> tuple[Kept, list[SetAside]]:
    """All candidates in worker processes; equal ones once, the first by name."""
    tick = effort.begin(len(found))
    outcomes = {}
    for item, outcome in read_all(read_one, found, workspace, effort.workers):
        outcomes[item.name] = outcome
        tick()
    kept: Kept = []
    set_aside: list[SetAside] = []
    first: dict[str, str] = {}
    for item in found:
        outcome = outcomes[item.name]
        if isinstance(outcome, SetAside):
            set_aside.append(outcome)
            continue
        row = entry_of((workspace / READ / f"{outcome.id}.json").read_text())
        assert isinstance(row, Row), "written by read_one"
        same = first.get(row.id) or first.get(row.voxel_sha256)
        if same is None:
            first[row.id] = first[row.voxel_sha256] = item.name
            kept.append((item, replace(row, model=generator)))
            continue
        cause = f"the same voxels as {same}, which was kept; twice they would weigh double"
        set_aside.append(SetAside(code=DUPLICATE, file=item.name, cause=cause, kept=same))
        if first.get(row.id) is None:
            (workspace / volume_file(row.id)).unlink()
            (workspace / preview_file(row.id)).unlink()
    return kept, set_aside


def read_one(item: Found, workspace: Path) -> Case:
    """Read one volume, write it as ours with its preview, and leave its row for the driver."""
    scan = folder.scan_of(item.files)
    volume, name, array_XYZ = scan.volume, scan.sha256[:16], scan.volume.array_XYZ
    picture = preview(volume, name)
    row = Row(
        id=name,
        radiograph_sha256="",
        patient="",
        finding="",
        sample=0,
        seed=0,
        model="",
        sampler="",
        fingerprint="",
        accepted=True,
        reason="",
        file_sha256=save(volume, workspace / volume_file(name), f"SYNTHETIC adopted {name}"),
        voxel_sha256=voxel_sha256(array_XYZ),
        preview_sha256=write_bytes(workspace / preview_file(name), picture),
        shape=array_XYZ.shape,
        spacing_mm=tuple(round(mm, 6) for mm in spacing_mm(volume.affine)),
        scale=AS_GIVEN,
    )
    write_text(workspace / READ / f"{name}.json", line_of(row))
    return Case(id=name)


# ---- what becomes of it ------------------------------------------------------------------------


def _with_patients(kept: Kept) -> list[Entry]:
    """Pseudonyms as in a cohort: "p" and the smallest id of those that share a name or folder."""
    ids = defaultdict(list)
    for item, row in kept:
        ids[item.patient].append(row.id)
    return [replace(row, patient=f"p{min(ids[item.patient])}") for item, row in kept]


def _quarantined(row: SetAside) -> Quarantined:
    """Known by its name, of which only a sum remains; a cause that may hold a name is withheld."""
    return Quarantined(
        id=sha256_of(f"{row.code}/{row.file}".encode())[:16],
        radiograph_sha256="",
        patient="",
        finding="",
        code=row.code,
        cause=ELSEWHERE if _may_name(row) else row.cause,
        remedy=row.remedy,
    )


def _may_name(row: SetAside) -> bool:
    return bool(row.kept) or "/" in row.cause or Path(row.file).name.split(".")[0] in row.cause


def _write_sources(kept: Iterable[tuple[Found, Row]], workspace: Path) -> None:
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("id", "path"))
    writer.writerows(sorted((row.id, str(item.files[0].resolve())) for item, row in kept))
    write_bytes(workspace / SOURCES, table.getvalue().encode("utf-8", "surrogateescape"))


def _about(generator: str, licence: str, kept: Kept) -> About:
    grids = {(row.shape, row.spacing_mm) for _, row in kept}
    shape, spacing = grids.pop() if len(grids) == 1 else ((), ())
    return About(
        kind="adopted",
        what=f"SYNTHETIC: said to be made by {generator}; not measured, not diagnostic. Read, "
        "checked and written anew, but not judged.",
        evidence="real",
        generator=generator,
        model=generator,
        trained_on="as its makers say",
        scale=AS_GIVEN,
        sources=(Source(role="volumes", title=f"volumes of {generator}", licence=licence),),
        shape=shape,
        spacing_mm=spacing,
    )
