"""Put back what a finished corpus has lost. Only recorded bytes are ever written.

What is derived is derived again, a file that lies in another's place is put into its own, and
volumes are made again by whoever made them. Whatever comes out must have the recorded sha256, or
it is refused: a finished artifact never changes.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from synth_ct.corpus.card import write_card
from synth_ct.corpus.folders import Fault
from synth_ct.corpus.layout import (
    ABOUT,
    CARD,
    MANIFEST,
    preview_file,
    quarantine_file,
    volume_file,
)
from synth_ct.corpus.manifest import write_manifest
from synth_ct.corpus.row import Quarantined, Row, line_of
from synth_ct.corpus.verify import (
    COPY_FILE,
    FOLDED_FILE,
    PICTURES,
    entries_of,
    read_top,
    rebuilt_receipts,
    verify,
)
from synth_ct.kit.artifact import RECORD, read_record
from synth_ct.kit.durable import sha256_of, sha256_of_file, write_bytes
from synth_ct.kit.effort import Effort

NOT_OURS = ("stray", "leftover", "misplaced")
"""Kinds of fault that are a file too many: a person may remove it, we write and never delete."""


class Made(NamedTuple):
    """What came out for one row."""

    row: Row
    volume: bytes
    preview: bytes


Regenerate = Callable[[Sequence[Row]], Iterable[Made]]
"""Makes volumes again from the original radiographs; a row it cannot make is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Who makes volumes again, and within what numerics."""

    regenerate: Regenerate
    fingerprint: str
    other_numerics: bool = False
    """Try even where the rows were made under another fingerprint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What was put back, and what was not."""

    restored: tuple[str, ...]
    left: tuple[Fault, ...]
    """Each with the reason in its detail."""


def repair(corpus: Path, maker: Maker | None = None, effort: Effort | None = None) -> Repaired:
    """Restore every recorded file that is damaged or missing; without a maker no volume."""
    effort = effort or Effort()
    faults = verify(corpus, effort).faults
    if not faults:
        return Repaired(restored=(), left=())
    _demand_record(corpus)
    why: dict[str, str] = {}
    with TemporaryDirectory(prefix=".repair-", dir=corpus.parent) as temporary:
        bench = Path(temporary)
        restored = list(_top(corpus, {fault.file for fault in faults}, bench))
        if restored:  # now what the others are checked against can be believed
            faults = verify(corpus, effort).faults
        bad = {fault.file for fault in faults}
        restored += _quarantine_files(corpus, bad)
        rows = _rows_to_mend(corpus, bad)
        restored += _moved_back(corpus, rows, _saved(corpus, faults, bench))
        missing = [row for row in rows if not all(_holds(corpus, row, f) for f in _files(row))]
        if missing:
            restored += _made_again(corpus, missing, maker, why)
        if _is_of_card(bad) and not any(preview_file(row.id) in why for row in missing):
            restored += _restore_card(corpus, bad, bench)
    left = verify(corpus, effort).faults
    explained = (replace(fault, detail=_advice(fault, why)) for fault in left)
    return Repaired(restored=tuple(sorted(restored)), left=tuple(explained))


def _demand_record(corpus: Path) -> None:
    """Everything else is believed because the record says so."""
    try:
        record = read_record(corpus)
    except ValueError:
        record = None
    if record is None:
        raise ValueError(
            f"{corpus / RECORD} is damaged or missing, and nothing else knows what it said: copy "
            "it back from another copy of the corpus, or make the corpus anew"
        )


def _advice(fault: Fault, why: dict[str, str]) -> str:
    if fault.kind in NOT_OURS:
        return f"{fault.detail}; repair deletes nothing: look at it and remove it"
    return why.get(fault.file, fault.detail)


# ---- what is derived ---------------------------------------------------------------------------


def _top(corpus: Path, bad: set[str], bench: Path) -> Iterator[str]:
    """Description, receipts and manifest, from one another."""
    if bad & {ABOUT, COPY_FILE}:
        yield from _restore_about(corpus)
    if FOLDED_FILE in bad and (about := read_top(corpus).about) is not None:
        lines = "".join(rebuilt_receipts(corpus)) if MANIFEST not in bad else ""
        if sha256_of(lines.encode()) == about.receipts_sha256:
            _write(corpus, FOLDED_FILE, lines.encode())
            yield FOLDED_FILE
    top = read_top(corpus)
    if MANIFEST in bad and top.receipts_hold:
        write_manifest(bench, (e for e in entries_of(corpus, top) if isinstance(e, Row)))
        yield from _accept(corpus, bench, MANIFEST)


def _quarantine_files(corpus: Path, bad: set[str]) -> Iterator[str]:
    """From their receipts, where these hold."""
    top = read_top(corpus)
    for entry in entries_of(corpus, top) if top.receipts_hold else ():
        if isinstance(entry, Quarantined) and (file := quarantine_file(entry.id)) in bad:
            _write(corpus, file, line_of(entry).encode())
            yield file


def _restore_about(corpus: Path) -> Iterator[str]:
    """It is kept twice; the record says which of the two is right."""
    record = read_record(corpus)
    assert record is not None, "demanded before"
    for good, bad in ((COPY_FILE, ABOUT), (ABOUT, COPY_FILE)):
        path = corpus / good
        if path.is_file() and sha256_of_file(path) == record.files.get(ABOUT):
            if not _is(corpus / bad, record.files[ABOUT]):
                _write(corpus, bad, path.read_bytes())
                yield bad
            return


def _restore_card(corpus: Path, bad: set[str], bench: Path) -> Iterator[str]:
    """The card shows figures and previews, so it comes last; written beside, and compared."""
    top = read_top(corpus)
    if top.about is None or not top.manifest_holds:
        return
    copy = bench / "corpus"
    copy.mkdir()
    for name in (MANIFEST, "previews"):
        (copy / name).symlink_to((corpus / name).resolve())
    write_card(copy, top.about)
    if CARD in bad:
        yield from _accept(corpus, copy, CARD)
    for path in sorted((copy / PICTURES).glob("*.png")):
        if (file := f"{PICTURES}/{path.name}") in bad:
            _write(corpus, file, path.read_bytes())
            yield file


def _is_of_card(bad: set[str]) -> bool:
    return any(file == CARD or file.startswith(f"{PICTURES}/") for file in bad)


def _accept(corpus: Path, bench: Path, name: str) -> Iterator[str]:
    """Put a file of the bench in its place, if it is the recorded one."""
    record = read_record(corpus)
    assert record is not None, "demanded before"
    if _is(bench / name, record.files.get(name, "")):
        _write(corpus, name, (bench / name).read_bytes())
        yield name


# ---- volumes and previews ----------------------------------------------------------------------


def _rows_to_mend(corpus: Path, bad: set[str]) -> list[Row]:
    entries = entries_of(corpus, read_top(corpus))
    return [e for e in entries if isinstance(e, Row) and not bad.isdisjoint(_files(e))]


def _files(row: Row) -> dict[str, str]:
    """The files of a row and their sums."""
    files = {volume_file(row.id): row.file_sha256} if row.accepted else {}
    return files | ({preview_file(row.id): row.preview_sha256} if row.preview_sha256 else {})


def _holds(corpus: Path, row: Row, file: str) -> bool:
    return _is(corpus / file, _files(row)[file])


def _saved(corpus: Path, faults: Sequence[Fault], bench: Path) -> dict[str, Path]:
    """Copies of files in a wrong place, by their sum: one of them may be what another lacks."""
    saved: dict[str, Path] = {}
    for fault in faults:
        path = corpus / fault.file
        if fault.kind in (*NOT_OURS, "swapped") and path.is_file():
            sha256 = sha256_of_file(path)
            saved[sha256] = Path(shutil.copyfile(path, bench / sha256))
    return saved


def _moved_back(corpus: Path, rows: Sequence[Row], saved: dict[str, Path]) -> Iterator[str]:
    for row in rows:
        for file, sha256 in _files(row).items():
            if sha256 in saved and not _holds(corpus, row, file):
                _write(corpus, file, saved[sha256].read_bytes())
                yield file


def _made_again(
    corpus: Path, rows: Sequence[Row], maker: Maker | None, why: dict[str, str]
) -> list[str]:
    """Volumes and previews anew; `why` is told what was not put back."""
    lacking = {file: row for row in rows for file in _files(row) if not _holds(corpus, row, file)}
    if maker is None:
        remedy = "it must be made again: name the generator that made it with --model"
        why.update(dict.fromkeys(lacking, remedy))
        return []
    others = sorted({row.fingerprint for row in rows} - {maker.fingerprint})
    if others and not maker.other_numerics:
        raise ValueError(
            f"{len(rows)} volumes were made under other numerics ({', '.join(others)}; here it is "
            f"{maker.fingerprint}), where the same bits are not promised: repair on such a "
            "machine (corpus.json says what it was), or try with --other-numerics"
        )
    why.update(dict.fromkeys(lacking, "its radiograph or its generator was not there"))
    restored = []
    for made in maker.regenerate(rows):
        made_files = {
            volume_file(made.row.id): made.volume,
            preview_file(made.row.id): made.preview,
        }
        for file in _files(made.row):
            if file not in lacking:
                continue
            if sha256_of(made_files[file]) == _files(lacking[file])[file]:
                _write(corpus, file, made_files[file])
                restored.append(file)
                del why[file]
            else:
                why[file] = "made again it has other bytes than were recorded, so it was refused"
    return restored


# ---- files -------------------------------------------------------------------------------------


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of_file(path) == sha256


def _write(corpus: Path, file: str, data: bytes) -> None:
    (corpus / file).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(corpus / file, data)
