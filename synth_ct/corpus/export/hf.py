"""A folder that Hugging Face `datasets` loads: NIfTI files, and a table with a row for each.

Previews are inside the table, so that a browser shows them without opening a volume.
"""

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synth_ct.corpus.export.content import accepted, card, link_volume
from synth_ct.corpus.layout import CARD, preview_file
from synth_ct.corpus.reader import Corpus
from synth_ct.corpus.row import SCHEMA, Row
from synth_ct.corpus.split import split_of
from synth_ct.kit.durable import sha256_of, write_text

OPENING = (
    "Hugging Face `datasets`: `load_dataset(FOLDER)` gives a split for each part of the patients, "
    "volumes in column `nifti`, pictures of them in `preview`."
)
ROWS_TOGETHER = 100
"""A viewer loads a whole group of rows to show one: pictures make small groups."""
PARTS = {"train": "train", "val": "validation", "test": "test"}
"""What we call a part of the patients -> what the hub does."""
LEFT_OUT = ("accepted", "quality", "preview_sha256")
"""All are accepted; each quality has a column; the preview is there itself."""
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(corpus: Corpus, workspace: Path, name: str) -> None:
    """For each part of the patients: `metadata.parquet`, and the volumes beside it."""
    qualities = sorted({quality for row in corpus.rows() for quality in row.quality})
    tables: dict[str, _Table] = {}
    with ExitStack() as stack:
        for row in accepted(corpus):
            part = PARTS[split_of(row.patient)]
            folder = workspace / part
            if part not in tables:
                folder.mkdir()
                tables[part] = _Table(stack, folder / "metadata.parquet", _schema(qualities))
            tables[part].add(_record(corpus, row, folder, qualities))
        for table in tables.values():
            table.flush()
    readme = workspace / CARD
    parts = [part for part in PARTS.values() if part in tables]
    write_text(readme, _front_matter(corpus, parts) + readme.read_text())


class _Table:
    """Rows of one part, written some at a time."""

    def __init__(self, stack: ExitStack, path: Path, schema: pa.Schema) -> None:
        self._writer = stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
        self._schema = schema
        self._coming: list[dict[str, Any]] = []

    def add(self, record: dict[str, Any]) -> None:
        self._coming.append(record)
        if len(self._coming) == ROWS_TOGETHER:
            self.flush()

    def flush(self) -> None:
        if self._coming:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._coming, schema=self._schema))
        self._coming = []


def _schema(qualities: list[str]) -> pa.Schema:
    kept = [field for field in SCHEMA if field.name not in LEFT_OUT]
    measured = [pa.field(f"quality_{quality}", pa.float64()) for quality in qualities]
    first = [("file_name", pa.string()), ("preview", PICTURE), ("synthetic", pa.bool_())]
    pictures = {"info": {"features": {"preview": {"_type": "Image"}}}}
    return pa.schema([*first, *kept, *measured], metadata={"huggingface": json.dumps(pictures)})


def _record(corpus: Corpus, row: Row, folder: Path, qualities: list[str]) -> dict[str, Any]:
    file = f"{row.id[:2]}/{row.id}.nii.gz"
    link_volume(corpus, row, folder / file)
    record = asdict(row)
    record["class"] = record.pop("finding")
    record |= {f"quality_{quality}": row.quality.get(quality) for quality in qualities}
    return record | {"file_name": file, "preview": _preview(corpus, row), "synthetic": True}


def _preview(corpus: Corpus, row: Row) -> dict[str, Any] | None:
    if not row.preview_sha256:
        return None
    path = corpus.folder / preview_file(row.id)
    picture = path.read_bytes()
    if sha256_of(picture) != row.preview_sha256:
        raise ValueError(
            f"{path} is damaged: it is not what the manifest recorded; restore it with "
            f"`synth-ct corpus repair {corpus.folder}`, then export again"
        )
    return {"bytes": picture, "path": f"{row.id}.png"}


def _front_matter(corpus: Corpus, parts: list[str]) -> str:
    """The corpus's own, but for where the data are."""
    kept = [line for line in card(corpus)[0] if not line.startswith("configs:")]
    files = [{"split": part, "path": f"{part}/**"} for part in parts]
    configs = json.dumps([{"config_name": "default", "data_files": files}])  # JSON is YAML
    return "\n".join(["---", *kept, f"configs: {configs}", "---", ""])
