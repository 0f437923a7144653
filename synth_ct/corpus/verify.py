"""Is a finished corpus what was recorded? Every byte, by the file and the kind of fault.

`record.json` is sealed and has the sums of the manifest, the description and the card; the
manifest has those of volumes and previews, the description that of the receipts, and quarantine
files repeat their receipts. Where the manifest is damaged, the receipts say the same.
"""

import hashlib
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from heapq import merge as merge_sorted
from itertools import groupby
from pathlib import Path

import pyarrow as pa
from pydantic import ValidationError

from synth_ct.corpus.about import About, Counts
from synth_ct.corpus.folders import KINDS, Fault, faults_of_group, named_swaps, png_is_whole
from synth_ct.corpus.layout import ABOUT, CARD, MANIFEST, RECEIPTS, quarantine_file
from synth_ct.corpus.manifest import read_manifest
from synth_ct.corpus.receipts import FOLDED, state_of
from synth_ct.corpus.row import Entry, Quarantined, Row, digest_of, entry_of, line_of
from synth_ct.kit.artifact import LOCAL_FILES, RECORD, Record, partial_of, read_record
from synth_ct.kit.durable import sha256_of_file
from synth_ct.kit.effort import Effort
from synth_ct.kit.progress import Tick

FOLDED_FILE, COPY_FILE = f"{RECEIPTS}/{FOLDED}", f"{RECEIPTS}/{ABOUT}"
PICTURES = "card"
_PICTURE = re.compile(rf"{PICTURES}/[\w-]+\.png")
UNREADABLE = (OSError, ValueError, TypeError, KeyError, pa.ArrowException)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was looked at, and what is wrong with it."""

    volumes: int
    faults: tuple[Fault, ...]

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not self.faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Top:
    """What the top of a corpus says, as far as it can be believed."""

    about: About | None
    manifest_holds: bool
    receipts_hold: bool
    recorded: tuple[str, ...]
    """Names of the files at the top."""
    faults: tuple[Fault, ...]


def verify(corpus: Path, effort: Effort | None = None) -> Verdict:
    """Read all of a finished corpus, and compare it with what was recorded."""
    demand_finished(corpus)
    top = read_top(corpus)
    faults = list(top.faults)
    if top.manifest_holds and top.receipts_hold and top.about is not None:
        faults += _disagreements(corpus, top.about)
    elif top.manifest_holds:
        faults += _doubtful_quarantine(corpus, top.about)
    volumes = 0
    seen: set[str] = set()

    def groups() -> Iterator[tuple[str, list[Entry]]]:
        nonlocal volumes
        for digits, entries in groupby(entries_of(corpus, top), key=lambda entry: entry.id[:2]):
            seen.add(digits)
            some = list(entries)
            volumes += sum(isinstance(entry, Row) and entry.accepted for entry in some)
            yield digits, some
        yield from ((digits, []) for digits in sorted(_digits(corpus) - seen))

    for found in _of_groups(corpus, groups(), top, effort or Effort()):
        faults += found
    faults = named_swaps(faults, (e for e in entries_of(corpus, top) if isinstance(e, Row)))
    faults += _strange_at_the_top(corpus, top.recorded)
    if not any(fault.file == CARD for fault in faults):
        faults += _of_pictures(corpus)
    return Verdict(volumes=volumes, faults=tuple(sorted(faults, key=lambda f: (f.file, f.kind))))


def demand_finished(corpus: Path) -> None:
    """A folder that was never finished is not a damaged one."""
    if (corpus / RECORD).exists() or ((corpus / MANIFEST).exists() and (corpus / ABOUT).exists()):
        return
    if not corpus.exists() and partial_of(corpus).exists():
        raise ValueError(
            f"{corpus} is not finished: {partial_of(corpus).name} is what there is of it so far; "
            "run the command that makes it again to continue"
        )
    raise ValueError(
        f"{corpus} is not a finished corpus: of {RECORD}, {MANIFEST} and {ABOUT} it has one at "
        "most; name the folder that holds them, or run the command that makes it to its end"
    )


# ---- the top of the corpus ---------------------------------------------------------------------


def read_top(corpus: Path) -> Top:
    """Check the files everything else is checked against, and which of them hold."""
    record, faults = _record(corpus)
    files = {} if record is None else record.files
    for name in sorted({*files, MANIFEST, ABOUT, CARD}):
        fault = _top_file(corpus, name, files.get(name, ""))
        faults += [fault] if fault else []
    bad = {fault.file for fault in faults}
    about = None if ABOUT in bad else _about(corpus / ABOUT)
    if about is None and ABOUT not in bad:
        faults.append(Fault(file=ABOUT, kind="damaged", detail="it is no description of a corpus"))
    receipts = _receipts_fault(corpus, about)
    faults += [receipts] if receipts else []
    manifest_holds = MANIFEST not in bad
    if manifest_holds and record is None and about is not None:
        fault = _digest_fault(corpus, about)
        faults += [fault] if fault else []
        manifest_holds = fault is None
    copy = _copy_fault(corpus, about)
    return Top(
        about=about,
        manifest_holds=manifest_holds,
        receipts_hold=receipts is None and about is not None,
        recorded=tuple(files),
        faults=(*faults, *copy),
    )


def _record(corpus: Path) -> tuple[Record | None, list[Fault]]:
    try:
        record = read_record(corpus)
    except ValueError:
        detail = "it does not match its own seal: what it says of the others is not believed"
        return None, [Fault(file=RECORD, kind="damaged", detail=detail)]
    if record is None:
        detail = "the corpus was never finished, or its record was deleted"
        return None, [Fault(file=RECORD, kind="missing", detail=detail)]
    return record, []


def _top_file(corpus: Path, name: str, recorded: str) -> Fault | None:
    if not (corpus / name).is_file():
        return Fault(file=name, kind="missing", detail="it is recorded, and not there")
    if recorded and (found := sha256_of_file(corpus / name)) != recorded:
        detail = f"its sha256 is {found[:12]}..., recorded {recorded[:12]}..."
        return Fault(file=name, kind="damaged", detail=detail)
    return None


def _about(path: Path) -> About | None:
    try:
        return About.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _copy_fault(corpus: Path, about: About | None) -> list[Fault]:
    """The copy of the description beside the receipts, which `repair` would need."""
    if about is None:
        return []  # then the copy is all there is, and `repair` compares it with the record
    if not (corpus / COPY_FILE).is_file():
        return [Fault(file=COPY_FILE, kind="missing", detail="the copy of the description")]
    if (corpus / COPY_FILE).read_bytes() == (corpus / ABOUT).read_bytes():
        return []
    return [Fault(file=COPY_FILE, kind="damaged", detail=f"it is not what {ABOUT} is")]


def _receipts_fault(corpus: Path, about: About | None) -> Fault | None:
    path = corpus / FOLDED_FILE
    if not path.is_file():
        return Fault(file=FOLDED_FILE, kind="missing", detail="the receipts of all items")
    if about is None or sha256_of_file(path) == about.receipts_sha256:
        return None
    return Fault(file=FOLDED_FILE, kind="damaged", detail=_first_damage(path))


def _first_damage(path: Path) -> str:
    """Where a person should look."""
    for number, line in enumerate(_lines(path), 1):
        try:
            if line_of(entry_of(line)) != line:
                return f"line {number} is not as it was written"
        except (ValueError, TypeError, KeyError):
            return f"line {number} cannot be read"
    return "its sha256 is not the recorded one: a line differs, or is missing"


def _digest_fault(corpus: Path, about: About) -> Fault | None:
    """Without a record the description still knows the digest."""
    try:
        holds = digest_of(read_manifest(corpus)) == about.digest
    except (*UNREADABLE, AssertionError):
        holds = False
    return None if holds else Fault(file=MANIFEST, kind="damaged", detail="its digest is another")


# ---- rows --------------------------------------------------------------------------------------


def entries_of(corpus: Path, top: Top) -> Iterator[Entry]:
    """What is recorded of every item, sorted by id, from where it is believed best."""
    if top.receipts_hold or not top.manifest_holds:
        yield from readable_receipts(corpus)
    else:
        yield from _without_receipts(corpus)


def readable_receipts(corpus: Path) -> Iterator[Entry]:
    """Every line that can be read."""
    for line in _lines(corpus / FOLDED_FILE):
        try:
            yield entry_of(line)
        except (ValueError, TypeError, KeyError):
            continue  # reported with the file


def quarantine_on_disk(corpus: Path) -> Iterator[Quarantined]:
    """What the quarantine files say, sorted by id, where they can be read."""
    for digits in sorted(_digits(corpus)):
        for path in sorted((corpus / "quarantine" / digits).glob("*.json")):
            try:
                entry = entry_of(path.read_text())
            except (ValueError, TypeError, KeyError):
                continue  # nothing speaks of it then: it is reported as a stray
            if isinstance(entry, Quarantined) and quarantine_file(entry.id).endswith(path.name):
                yield entry


def rebuilt_receipts(corpus: Path) -> Iterator[str]:
    """The lines of the receipts, from the manifest and the quarantine files."""
    return (f"{line_of(entry)}\n" for entry in _without_receipts(corpus))


def _without_receipts(corpus: Path) -> Iterator[Entry]:
    parts: list[Iterator[Entry]] = [read_manifest(corpus), quarantine_on_disk(corpus)]
    return merge_sorted(*parts, key=lambda entry: entry.id)


def _lines(path: Path) -> Iterator[str]:
    if path.is_file():
        with path.open("rb") as file:
            for line in file:
                yield line.decode("utf-8", "replace").removesuffix("\n")


def _disagreements(corpus: Path, about: About) -> list[Fault]:
    """Manifest, receipts and description hold, each as it was written; do they say the same?"""
    faults: list[Fault] = []
    counts: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    last = ""
    rows = read_manifest(corpus)
    for entry in readable_receipts(corpus):
        counts[state_of(entry)] += 1
        if entry.id <= last:
            faults.append(Fault(file=FOLDED_FILE, kind="duplicate", detail=f"{entry.id} is twice"))
        last = entry.id
        if isinstance(entry, Quarantined):
            codes[entry.code] += 1
        elif next(rows, None) != entry:
            detail = f"row {entry.id} is not what its receipt says"
            return [*faults, Fault(file=MANIFEST, kind="disagrees", detail=detail)]
    if (more := next(rows, None)) is not None:
        detail = f"row {more.id} has no receipt"
        faults.append(Fault(file=MANIFEST, kind="disagrees", detail=detail))
    if faults:
        return faults
    found = Counts(
        total=counts.total(),
        committed=counts["committed"],
        rejected=counts["rejected"],
        quarantined=counts["quarantined"],
        duplicates=codes["duplicate"],
    )
    said = (about.counts, about.codes, about.digest)
    if said != (found, dict(codes), digest_of(read_manifest(corpus))):
        detail = "its counts, codes or digest are not those of the manifest and the receipts"
        faults.append(Fault(file=ABOUT, kind="disagrees", detail=detail))
    return faults


def _doubtful_quarantine(corpus: Path, about: About | None) -> list[Fault]:
    """The receipts are damaged: if the other files give the recorded sum, only they are."""
    digest = hashlib.sha256()
    for line in rebuilt_receipts(corpus):
        digest.update(line.encode())
    if about is None or digest.hexdigest() == about.receipts_sha256:
        return []
    detail = "it and its receipt, one of them damaged, say different things"
    return [
        Fault(file=quarantine_file(entry.id), kind="disagrees", detail=detail)
        for entry in readable_receipts(corpus)
        if isinstance(entry, Quarantined) and not _says(corpus / quarantine_file(entry.id), entry)
    ]


def _says(path: Path, entry: Quarantined) -> bool:
    return path.is_file() and path.read_bytes() == line_of(entry).encode()


# ---- files -------------------------------------------------------------------------------------


def _digits(corpus: Path) -> set[str]:
    """The folders there are below volumes, previews and quarantine."""
    return {
        path.name
        for kind in KINDS
        if (corpus / kind).is_dir()
        for path in (corpus / kind).iterdir()
        if path.is_dir()
    }


def _of_groups(
    corpus: Path, groups: Iterable[tuple[str, list[Entry]]], top: Top, effort: Effort
) -> Iterator[list[Fault]]:
    """Group by group, in worker processes if there are any; few are in memory at once."""
    tick = effort.begin(top.about.counts.total if top.about else 0)
    if effort.workers == 0:
        for digits, entries in groups:
            yield faults_of_group(corpus, digits, entries, top.receipts_hold)
            tick(len(entries))
        return
    from synth_ct.cohort.pool import worker_pool

    flying: deque[tuple[int, Future[list[Fault]]]] = deque()
    with worker_pool(effort.workers) as pool:
        for digits, entries in groups:
            arguments = (corpus, digits, entries, top.receipts_hold)
            flying.append((len(entries), pool.submit(faults_of_group, *arguments)))
            if len(flying) >= 4 * effort.workers:
                yield _landed(flying, tick)
        while flying:
            yield _landed(flying, tick)


def _landed(flying: deque[tuple[int, Future[list[Fault]]]], tick: Tick) -> list[Fault]:
    count, future = flying.popleft()
    found = future.result()
    tick(count)
    return found


def _strange_at_the_top(corpus: Path, recorded: Iterable[str]) -> Iterator[Fault]:
    """What lies beside the files and folders of a corpus, or in the wrong depth of them."""
    known = {RECORD, MANIFEST, ABOUT, CARD, *LOCAL_FILES, *recorded}
    for path in sorted(corpus.iterdir()):
        if path.name not in ({*KINDS, RECEIPTS, PICTURES} if path.is_dir() else known):
            yield _stray(path.name)
    for path in sorted(p for kind in KINDS for p in (corpus / kind).glob("*") if not p.is_dir()):
        yield _stray(str(path.relative_to(corpus)))
    for path in sorted((corpus / RECEIPTS).glob("*")):
        if path.name not in (FOLDED, ABOUT):
            yield _stray(f"{RECEIPTS}/{path.name}")


def _of_pictures(corpus: Path) -> Iterator[Fault]:
    """The card, whose sum is recorded, names its pictures; a PNG has sums of its own."""
    shown = set(_PICTURE.findall((corpus / CARD).read_text("utf-8", "replace")))
    for file in sorted(shown):
        if not (corpus / file).is_file():
            yield Fault(file=file, kind="missing", detail="the card shows it")
        elif not png_is_whole((corpus / file).read_bytes()):
            yield Fault(file=file, kind="damaged", detail="a part of it does not have its own sum")
    for path in sorted((corpus / PICTURES).glob("*")):
        if f"{PICTURES}/{path.name}" not in shown:
            yield _stray(f"{PICTURES}/{path.name}")


def _stray(file: str) -> Fault:
    return Fault(file=file, kind="stray", detail="nothing that is recorded speaks of it")
