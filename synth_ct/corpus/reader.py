"""Product: open a finished corpus. What is read is checked against what was recorded."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from synth_ct.corpus.about import About
from synth_ct.corpus.layout import ABOUT, MANIFEST, volume_file
from synth_ct.corpus.manifest import read_manifest
from synth_ct.corpus.row import Row
from synth_ct.kit.artifact import Record, read_record
from synth_ct.kit.durable import sha256_of_file
from synth_ct.kit.volume import Volume, load


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A finished corpus."""

    folder: Path
    about: About
    record: Record

    @classmethod
    def open(cls, folder: Path) -> "Corpus":
        """Open it; an unfinished one, and one whose manifest was changed, is refused."""
        record = read_record(folder)
        if record is None:
            raise ValueError(
                f"{folder} is not a finished corpus (no record.json); make one with `synth-ct "
                "generate RADIOGRAPHS OUT --model DIR`, and run it again if it was stopped"
            )
        for name in (ABOUT, MANIFEST):
            if name not in record.files:
                raise ValueError(f"{folder} is a {record.kind}, not a corpus: it has no {name}")
            if sha256_of_file(folder / name) != record.files[name]:
                raise ValueError(
                    f"{folder / name} was changed after it was written; "
                    f"see what else was with `synth-ct corpus verify {folder}`"
                )
        try:
            about = About.model_validate_json((folder / ABOUT).read_text())
        except ValidationError as error:
            raise ValueError(
                f"{folder} was written by another version of synth-ct ({error}); "
                "read it with that version"
            ) from error
        return cls(folder=folder, about=about, record=record)

    def rows(self) -> Iterator[Row]:
        """All rows, sorted by id; the rejected ones have no volume."""
        return read_manifest(self.folder)

    def accepted(self) -> list[Row]:
        """The rows that have a volume."""
        return [row for row in self.rows() if row.accepted]

    def volume(self, row: Row) -> Volume:
        """The volume of a row, checked."""
        return load(self.folder / volume_file(row.id), row.file_sha256)
