"""Read a finished cohort. Every volume is checked against its recorded sha256 on the way in."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from synth_ct.cohort.case import Case, Kind, Split
from synth_ct.kit.artifact import Record, read_record
from synth_ct.kit.durable import sha256_of, sha256_of_file
from synth_ct.kit.volume import LabelMap, Volume, load, load_labels
from synth_ct.xray.grey import Decoded
from synth_ct.xray.pose import read_radiograph

CASES = "cases.jsonl"
ABOUT = "cohort.json"
SOURCES = "sources.csv"
_CASE = TypeAdapter(Case)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The accounting of an import: total = accepted + quarantined, nothing lost."""

    total: int
    accepted: int
    quarantined: int
    duplicates: int
    """Exact copies; counted in `quarantined`, where each names the file kept in its place."""
    patients: int
    leaking_patients: int
    """Patients the source's own split puts in more than one part; none of ours does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """A finished cohort."""

    folder: Path
    kind: Kind
    classes: dict[int, str]
    about: dict[str, Any]
    summary: Summary
    cases: tuple[Case, ...]
    record: Record

    @classmethod
    def open(cls, folder: Path) -> "Cohort":
        """Open a finished cohort; an unfinished or damaged one is refused."""
        record = read_record(folder)
        if record is None:
            raise ValueError(
                f"{folder} is not a finished cohort (no record.json); "
                "make it with `synth-ct ingest` or `synth-ct phantoms`"
            )
        texts = {}
        for name in (ABOUT, CASES):
            data = (folder / name).read_bytes()
            if sha256_of(data) != record.files[name]:
                raise ValueError(f"{folder / name} was changed after it was written; make it anew")
            texts[name] = data.decode()
        try:
            return cls._parse(folder, record, json.loads(texts[ABOUT]), texts[CASES].splitlines())
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{folder} was written by another version of synth-ct ({error}); "
                "read it with that version, or make it anew"
            ) from error

    @classmethod
    def _parse(
        cls, folder: Path, record: Record, about: dict[str, Any], cases: list[str]
    ) -> "Cohort":
        return cls(
            folder=folder,
            kind=about["kind"],
            classes={int(k): v for k, v in about["classes"].items()},
            about=about["about"],
            summary=Summary(**about["summary"]),
            cases=tuple(parse_case(row) for row in cases),
            record=record,
        )

    def of(self, split: Split) -> tuple[Case, ...]:
        """The cases of one part."""
        return tuple(case for case in self.cases if case.split == split)

    def volume(self, case: Case) -> Volume:
        """The CT of a case, checked."""
        return load(self.folder / case.file, case.file_sha256)

    def labels(self, case: Case) -> LabelMap:
        """The segmentation of a labelled case, checked."""
        return load_labels(self.folder / case.label_file, case.label_sha256)

    def radiograph(self, case: Case, paths: Mapping[str, Path]) -> Decoded:
        """The film of a case, read from its original (`source_paths`), which must be unchanged."""
        path = paths[case.id]
        if sha256_of_file(path) != case.file_sha256:
            raise ValueError(
                f"{path} is not the file that was imported as {case.id}: its sha256 differs; "
                "restore it, or import the folder anew"
            )
        return read_radiograph(path)

    def source_paths(self) -> dict[str, Path]:
        """Case id -> its original file, the first of a series. Radiographs are only there."""
        with (self.folder / SOURCES).open(newline="", errors="surrogateescape") as file:
            return {row["id"]: self.folder / row["path"] for row in csv.DictReader(file)}


def parse_case(line: str) -> Case:
    """One line of `cases.jsonl`."""
    try:
        return _CASE.validate_json(line)
    except ValidationError as error:
        raise ValueError(f"not a case: {line[:80]!r}: {error}") from error


def case_line(case: Case) -> str:
    """The inverse of `parse_case`."""
    return json.dumps(asdict(case), allow_nan=False)
