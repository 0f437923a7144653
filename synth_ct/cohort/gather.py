"""From what lies in a source folder to a cohort: read in parallel, resume, divide by patient.

Every candidate ends in exactly one place: accepted, or quarantined with a code. Receipts in the
workspace let a killed import continue where it stopped.
"""

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, replace
from io import StringIO
from os import path as os_path
from pathlib import Path
from typing import TextIO

from synth_ct.cohort.case import Case, Findings, Found, Importer, Split
from synth_ct.cohort.pool import Outcome, read_all
from synth_ct.cohort.reader import ABOUT, CASES, SOURCES, Summary, case_line, parse_case
from synth_ct.kit.artifact import Record, is_done, publish
from synth_ct.kit.durable import write_bytes, write_text
from synth_ct.kit.effort import Effort
from synth_ct.kit.quarantine import SetAside, counts_by_code, write_report

RECEIPTS = "receipts.jsonl"
DUPLICATE = "duplicate"


def ingest(importer: Importer, source: Path, out: Path, seed: int, effort: Effort) -> Summary:
    """Make the cohort `out` from a source folder, or find it already made."""
    if out.resolve().is_relative_to(source.resolve()):
        raise ValueError(
            f"{out} lies inside {source}: what is made would be read as a source the next time; "
            "choose a place outside"
        )
    findings = importer.find(source)
    if not (findings.found or findings.set_aside):
        raise ValueError(
            f"nothing in {source} looks like what `{importer.name}` reads; "
            "check the folder, or choose another kind of source"
        )
    wanted = Record(
        kind=f"cohort/{importer.kind}",
        recipe={"importer": importer.name, "seed": seed, "listing": listing(findings)},
    )
    if not is_done(out, wanted):
        with publish(out, wanted) as workspace:
            gather(importer, findings, workspace, seed, effort)
    return Summary(**json.loads((out / ABOUT).read_text())["summary"])


def listing(findings: Findings) -> str:
    """What was found, by name and size: another listing is another recipe."""
    digest = hashlib.sha256()
    for item in sorted(findings.found, key=lambda f: f.name):
        sizes = [file.stat().st_size for file in (*item.files, *item.labels)]
        fields = (item.name, item.patient, item.split, item.finding, *sizes)
        digest.update(json.dumps(fields).encode())
    for row in sorted(findings.set_aside, key=lambda r: (r.file, r.code)):
        digest.update(json.dumps((row.file, row.code)).encode())
    return digest.hexdigest()[:16]


def gather(
    importer: Importer, findings: Findings, workspace: Path, seed: int, effort: Effort
) -> Summary:
    """Fill a workspace with a cohort: read, drop duplicates, divide by patient, write the index."""
    found = sorted(findings.found, key=lambda f: f.name)
    assert len({item.name for item in found}) == len(found), "names of candidates must be unique"
    outcomes = _read_with_receipts(importer, found, workspace, effort)
    pairs, set_aside = _without_duplicates(found, outcomes, workspace)
    set_aside += findings.set_aside
    cases = _divided(importer, pairs, seed)
    summary = Summary(
        total=len(found) + len(findings.set_aside),
        accepted=len(cases),
        quarantined=len(set_aside),
        duplicates=sum(row.code == DUPLICATE for row in set_aside),
        patients=len({case.patient for _, case in cases}),
        leaking_patients=_leaking(found),
    )
    about = {
        "kind": importer.kind,
        "importer": importer.name,
        "classes": dict(findings.classes),
        "about": dict(importer.about),
        "summary": asdict(summary),
        "codes": counts_by_code(set_aside),
        "ignored": dict(findings.ignored),
    }
    write_text(workspace / ABOUT, json.dumps(about, indent=1))
    _write_index(workspace, cases)
    write_report(workspace, set_aside)
    (workspace / RECEIPTS).unlink(missing_ok=True)
    return summary


# ---- reading, with receipts --------------------------------------------------------------------


def _stamp(item: Found) -> str:
    """Changes when a candidate's files change between two runs of one import."""
    facts = [(f.stat().st_size, f.stat().st_mtime_ns) for f in (*item.files, *item.labels)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _read_with_receipts(
    importer: Importer, found: list[Found], workspace: Path, effort: Effort
) -> dict[str, Outcome]:
    stamps = {item.name: _stamp(item) for item in found}
    receipts = workspace / RECEIPTS
    outcomes = {
        name: outcome
        for name, stamp, outcome in _old_receipts(receipts)
        if stamps.get(name) == stamp
    }
    todo = [item for item in found if item.name not in outcomes]
    tick = effort.begin(len(found))
    tick(len(outcomes))
    with receipts.open("a") as journal:
        for item, outcome in read_all(importer.read, todo, workspace, effort.workers):
            outcomes[item.name] = outcome
            _note(journal, item.name, stamps[item.name], outcome)
            tick(1)
    return outcomes


def _note(journal: TextIO, name: str, stamp: str, outcome: Outcome) -> None:
    key = "case" if isinstance(outcome, Case) else "set_aside"
    journal.write(json.dumps({"name": name, "stamp": stamp, key: asdict(outcome)}) + "\n")
    journal.flush()


def _old_receipts(path: Path) -> Iterable[tuple[str, str, Outcome]]:
    """What an earlier run left; a line torn by its death is ignored and read again."""
    if not path.exists():
        return
    whole, _, torn = path.read_text().rpartition("\n")
    if torn:
        path.write_text(f"{whole}\n" if whole else "")
    for line in whole.splitlines():
        row = json.loads(line)
        outcome: Outcome = (
            parse_case(json.dumps(row["case"])) if "case" in row else SetAside(**row["set_aside"])
        )
        yield row["name"], row["stamp"], outcome


# ---- what becomes of the outcomes --------------------------------------------------------------

Pair = tuple[Found, Case]


def _without_duplicates(
    found: list[Found], outcomes: dict[str, Outcome], workspace: Path
) -> tuple[list[Pair], list[SetAside]]:
    """Keep the first of equal sources or equal pixels, in name order; set the copies aside."""
    first: dict[str, str] = {}
    pairs: list[Pair] = []
    set_aside: list[SetAside] = []
    ids: set[str] = set()
    for item in found:
        outcome = outcomes[item.name]
        if isinstance(outcome, SetAside):
            set_aside.append(outcome)
            continue
        kept = first.get(outcome.id) or first.get(outcome.pixels_sha256 or outcome.id)
        if kept is None:
            first[outcome.id] = first[outcome.pixels_sha256 or outcome.id] = item.name
            ids.add(outcome.id)
            pairs.append((item, outcome))
            continue
        cause = f"the same image as {kept}, which was kept; counting it twice would weigh it double"
        set_aside.append(SetAside(code=DUPLICATE, file=item.name, cause=cause, kept=kept))
        for leftover in (outcome.file, outcome.label_file):
            if leftover and outcome.id not in ids:
                (workspace / leftover).unlink(missing_ok=True)
    return pairs, set_aside


def _divided(importer: Importer, pairs: list[Pair], seed: int) -> list[Pair]:
    """Give every case its patient's pseudonym and split."""
    of_patient: dict[str, list[Pair]] = defaultdict(list)
    for item, case in pairs:
        of_patient[item.patient].append((item, case))
    splits = importer.divide(
        {p: [item for item, _ in rows] for p, rows in of_patient.items()}, seed
    )
    divided: list[Pair] = []
    for patient, rows in of_patient.items():
        pseudonym = "p" + min(case.id for _, case in rows)
        split = splits[patient]
        divided += [(i, replace(c, patient=pseudonym, split=split)) for i, c in rows]
    return sorted(divided, key=lambda pair: pair[1].id)


def _leaking(found: list[Found]) -> int:
    parts: dict[str, set[Split]] = defaultdict(set)
    for item in found:
        if item.split is not None:
            parts[item.patient].add(item.split)
    return sum(len(splits) > 1 for splits in parts.values())


def _write_index(workspace: Path, pairs: list[Pair]) -> None:
    write_text(workspace / CASES, "".join(case_line(case) + "\n" for _, case in pairs))
    table = StringIO()
    rows = csv.writer(table)
    rows.writerow(("id", "path"))
    for item, case in pairs:
        if item.files:
            rows.writerow((case.id, _portable(item.files[0], workspace)))
    write_bytes(workspace / SOURCES, table.getvalue().encode("utf-8", "surrogateescape"))


def _portable(file: Path, workspace: Path) -> str:
    """Relative where source and cohort share a root and move together, else absolute.

    Never begins with a sign that a spreadsheet would take for a formula.
    """
    source, root = file.resolve(), workspace.resolve().parent
    if source.is_relative_to(root):
        return os_path.join("..", source.relative_to(root))
    return str(source)
