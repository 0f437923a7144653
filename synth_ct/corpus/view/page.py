"""One HTML file: template, style, script, NiiVue, and the corpus' rows, pictures and volumes.

The browser is told by a content security policy to run the two scripts with these sha256 and to
fetch nothing at all. Whatever others named things reaches the page as JSON and is shown as text.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from synth_ct.corpus.layout import preview_file, volume_file
from synth_ct.corpus.reader import Corpus
from synth_ct.corpus.row import Row
from synth_ct.corpus.split import split_of
from synth_ct.corpus.tally import Figure, tally
from synth_ct.corpus.view.choose import (
    Spread,
    every_so_many,
    figure_of,
    from_usual_to_odd,
    oddness,
    spread_of,
)
from synth_ct.corpus.view.films import data_uri, films_of
from synth_ct.kit.durable import sha256_of, write_bytes

ROWS = 300
VOLUMES = 24
VOLUME_BYTES = 48_000_000
"""Of all volumes in a page together; base64 makes them a third larger."""
HERE = files("synth_ct.corpus.view")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a page holds."""

    rows: int
    volumes: int
    radiographs: int
    bytes: int


def write_view(corpus: Corpus, out: Path, *, limit: int = ROWS, radiographs: bool = False) -> View:
    """Write the page; what is inlined is checked against the manifest first."""
    if out.resolve().is_relative_to(corpus.folder.resolve()):
        raise ValueError(f"{out} is inside the corpus, which never changes; write it elsewhere")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ValueError(f"{out} cannot be written: give the name of a file in a folder that is")
    counts = tally(corpus.rows())
    spreads = spreads_of(counts.figures | {"out_of_distribution": counts.out_of_distribution})
    made = corpus.about.counts.committed + corpus.about.counts.rejected
    rows = every_so_many(corpus.rows(), made, limit)
    odd = {row.id: oddness(row, spreads) for row in rows}
    volumes = volumes_of(corpus.folder, from_usual_to_odd(rows, odd, VOLUMES))
    films = films_of(corpus.folder, rows) if radiographs else {}
    shown = [described(corpus.folder, row, odd[row.id], films) for row in rows]
    data = {
        **about(corpus),
        "made": made,
        "figures": {name: list(spread) for name, spread in spreads.items()},
        "rows": shown,
        "films": len(films),
    }
    page = filled(data, volumes).encode()
    write_bytes(out, page)
    return View(rows=len(rows), volumes=len(volumes), radiographs=len(films), bytes=len(page))


def spreads_of(figures: Mapping[str, Figure]) -> dict[str, Spread]:
    """By name, without those never measured."""
    found = {name: spread_of(figure) for name, figure in sorted(figures.items())}
    return {name: spread for name, spread in found.items() if spread is not None}


def about(corpus: Corpus) -> dict[str, Any]:
    """What the page says of the corpus."""
    said = corpus.about
    cautions = [caution for source in said.sources for caution in source.cautions]
    sources = [f"{s.role}: {s.title}, licence {s.licence}. {s.citation}" for s in said.sources]
    return {
        "title": f"{said.generator}: synthetic chest CT",
        "what": said.what,
        "evidence": said.evidence,
        "trained_on": said.trained_on,
        "scale": said.scale,
        "digest": said.digest,
        "model": said.model,
        "counts": said.counts.model_dump(),
        "sources": sources,
        "cautions": cautions,
    }


def described(corpus: Path, row: Row, odd: float, films: Mapping[str, str]) -> dict[str, Any]:
    """One row as the page wants it. Ids only: no path, no name."""
    figures = {name: figure_of(row, name) for name in (*row.quality, "out_of_distribution")}
    preview = ""
    if row.preview_sha256:
        preview = data_uri(_checked(corpus / preview_file(row.id), row.preview_sha256))
    return {
        "id": row.id,
        "class": row.finding,
        "split": split_of(row.patient),
        "state": ("flagged" if row.reason else "passed") if row.accepted else "rejected",
        "reason": row.reason,
        "shape": row.shape,
        "spacing": row.spacing_mm,
        "sampler": row.sampler,
        "odd": odd,
        "figures": figures,
        "preview": preview,
        "film": films.get(row.id, ""),
    }


def volumes_of(corpus: Path, rows: Iterable[Row]) -> dict[str, bytes]:
    """The files themselves, as many of `rows`, which come in order, as a page can hold."""
    held: dict[str, bytes] = {}
    wanted = {row.id: (corpus / volume_file(row.id), row.file_sha256) for row in rows}
    size = max((path.stat().st_size for path, _ in wanted.values()), default=1)
    for item in _thinned(list(wanted), VOLUME_BYTES // size):
        held[item] = _checked(*wanted[item])
    return held


def _thinned(items: Sequence[str], most: int) -> Sequence[str]:
    """At most so many, ends kept."""
    if len(items) <= most:
        return items
    return [items[round(n * (len(items) - 1) / max(1, most - 1))] for n in range(most)]


def _checked(path: Path, sha256: str) -> bytes:
    data = path.read_bytes()
    if sha256_of(data) != sha256:
        raise ValueError(
            f"{path} is damaged: its sha256 is not the recorded one; see what else is with "
            "`synth-ct corpus verify`, and mend it with `synth-ct corpus repair`"
        )
    return data


# ---- the page ----------------------------------------------------------------------------------


def filled(data: Mapping[str, Any], volumes: Mapping[str, bytes]) -> str:
    """The template with everything in it."""
    style, script = _text("page.css"), _text("page.js")
    niivue = _text("vendor/niivue.umd.js")
    assert not re.search(r"</script|<!--", script + niivue, re.IGNORECASE), "would end the script"
    parts = {
        "TITLE": html.escape(str(data["title"])),
        "POLICY": policy((niivue, script), style),
        "STYLE": style,
        "NIIVUE": niivue,
        "SCRIPT": script,
        "DATA": json_in_html({**data, "volumes": list(volumes)}),
        "VOLUMES": "\n".join(_block(item, raw) for item, raw in volumes.items()),
    }
    # One pass: what is filled in is not searched for further places.
    return re.sub(r"@@([A-Z]+)@@", lambda place: parts[place[1]], _text("page.html"))


def policy(scripts: Sequence[str], style: str) -> str:
    """Nothing may be fetched, and nothing run but what was written here."""
    allowed = " ".join(f"'{_sha256(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src '{_sha256(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def json_in_html(data: Mapping[str, Any]) -> str:
    """JSON that no HTML parser can mistake for a tag or a comment."""
    text = json.dumps(data, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _block(item: str, raw: bytes) -> str:
    text = base64.b64encode(raw).decode()
    return f'<script type="text/plain" id="volume-{html.escape(item)}">{text}</script>'


def _sha256(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _text(name: str) -> str:
    return HERE.joinpath(name).read_text(encoding="utf-8")
