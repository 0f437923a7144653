"""The radiographs that volumes were made from, as the generator saw them; where they still are.

Only on request: a page with radiographs is for the eyes of those who may see them.
"""

import base64
import csv
import io
from collections.abc import Iterable
from pathlib import Path

from synth_ct.corpus.layout import SOURCES
from synth_ct.corpus.row import Row
from synth_ct.kit.durable import sha256_of_file


def films_of(corpus: Path, rows: Iterable[Row]) -> dict[str, str]:
    """Id -> framed film as a data URI; a film that was moved, changed or is refused is left out."""
    paths = _paths(corpus / SOURCES)
    found = {}
    for row in rows:
        path = paths.get(row.id)
        if path is None or not path.is_file() or sha256_of_file(path) != row.radiograph_sha256:
            continue
        if (film := _film(path)) is not None:
            found[row.id] = film
    return found


def _paths(table: Path) -> dict[str, Path]:
    if not table.exists():
        raise ValueError(
            f"{table} is not here, so nobody knows where the radiographs are: it stays on the "
            "machine that made the corpus. Make the page there, or without --radiographs"
        )
    with table.open(newline="", errors="surrogateescape") as file:
        return {row["id"]: Path(row["path"]) for row in csv.DictReader(file)}


def _film(path: Path) -> str | None:
    import numpy as np
    from PIL import Image

    from synth_ct.kit.quarantine import Refused
    from synth_ct.xray.frame import frame
    from synth_ct.xray.pose import read_radiograph

    try:
        film_UV = frame(read_radiograph(path).pixels_UV).film_UV
    except Refused:
        return None
    grey_UV = np.rint(255 * (film_UV + 1) / 2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey_UV).save(file, "PNG")
    return data_uri(file.getvalue())


def data_uri(png: bytes) -> str:
    """A picture inside the page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
