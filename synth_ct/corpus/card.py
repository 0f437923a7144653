"""The data card: `README.md` of a corpus, for whoever finds the folder without us.

Markdown with the front matter that Hugging Face reads. Everything in it comes from the manifest and
the description; titles and classes come from other people's files, and are escaped.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from synth_ct.corpus.about import About, Source
from synth_ct.corpus.card_pictures import SHOWN, evenly, write_histograms, write_sheet
from synth_ct.corpus.layout import CARD, MANIFEST
from synth_ct.corpus.manifest import read_manifest
from synth_ct.corpus.tally import Figure, Tally, distinct, tally
from synth_ct.kit.durable import write_text

PICTURES = "card"
SHEET, HISTOGRAMS = f"{PICTURES}/sheet.png", f"{PICTURES}/quality.png"
OUT_OF_DISTRIBUTION = "out_of_distribution"
MOST_GRIDS = 5
HUB_LICENCES = {
    "apache-2.0": "apache-2.0",
    "mit": "mit",
    "cc0": "cc0-1.0",
    "cc by 3.0": "cc-by-3.0",
    "cc by 4.0": "cc-by-4.0",
    "cc by-sa 3.0": "cc-by-sa-3.0",
    "cc by-sa 4.0": "cc-by-sa-4.0",
    "cc by-nc 4.0": "cc-by-nc-4.0",
    "cc by-nc-sa 4.0": "cc-by-nc-sa-4.0",
}
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
CHILDREN = re.compile(r"\b(age gap|child(ren)?|p(a)?ediatric)\b", re.IGNORECASE)
KINDS = {
    "generated": "Made by one generator, each volume from one radiograph.",
    "adopted": "Made elsewhere and taken over: what follows is what its files themselves say.",
    "merged": "Several corpora put together; each row says which generator made it.",
}
OPENING = """\
```python
from pathlib import Path; from synth_ct.corpus import Corpus
corpus = Corpus.open(Path("."))  # this folder; refused if the manifest was changed
volumes = [corpus.volume(row) for row in corpus.accepted()[:4]]  # HU and affine, sha256 checked
```"""


def write_card(corpus: Path, about: About) -> None:
    """Write the card, and its pictures, from the manifest and the description."""
    counts = tally(read_manifest(corpus), places=evenly(about.counts.committed))
    figures = dict(sorted(counts.figures.items()))
    if counts.out_of_distribution.seen:
        figures[OUT_OF_DISTRIBUTION] = counts.out_of_distribution
    (corpus / PICTURES).mkdir(exist_ok=True)
    shown = write_sheet(corpus / SHEET, corpus, counts.picked)
    if figures:
        write_histograms(corpus / HISTOGRAMS, figures)
    sections = (
        _front_matter(about),
        _what(about),
        _sheet(shown),
        _use(about),
        _sources(about),
        _age_gap(about),
        _accounting(about, counts, corpus),
        _acceptance(about, counts),
        _quality(figures),
        _unusual(counts.out_of_distribution),
        _opening(),
        _layout(shown, bool(figures)),
        _provenance(about, counts),
    )
    write_text(corpus / CARD, "\n\n".join(part for part in sections if part) + "\n")


# ---- what it is --------------------------------------------------------------------------------


def _front_matter(about: About) -> str:
    licences = {source.licence for source in about.sources}
    known = HUB_LICENCES.get(licences.pop().casefold()) if len(licences) == 1 else None
    licence = [f"license: {known}"] if known else ["license: other", "license_name: see-sources"]
    size = next((name for most, name in SIZES.items() if about.counts.committed < most), "n>1M")
    lines = (
        f"pretty_name: {json.dumps(_title(about))}",
        *licence,
        "task_categories: [image-feature-extraction, image-segmentation]",
        "tags: [synthetic, medical, ct, chest]",
        f"size_categories: [{size}]",
        f"configs: [{{config_name: default, data_files: {MANIFEST}}}]",
    )
    return "\n".join(("---", *lines, "---"))


def _title(about: About) -> str:
    return f"{about.generator}: synthetic chest CT"


def _what(about: About) -> str:
    phantom = (
        "\n\n**Phantoms were involved**, in training or as input: this corpus shows that the "
        "machinery works, and nothing about patients."
        if about.evidence == "phantom"
        else ""
    )
    return (
        f"# {plain(_title(about))}\n\n> **{plain(about.what)}**\n\n{KINDS[about.kind]} "
        f"The generator learned from: {plain(about.trained_on)}.{phantom}"
    )


def _sheet(shown: int) -> str:
    if not shown:
        return ""
    chosen = "All" if shown < SHOWN else f"{shown} volumes, evenly spaced in the order of their ids"
    why = "" if shown < SHOWN else " (ids are hashes: nobody chose them)"
    return f"![{shown} volumes, three planes each]({SHEET})\n\n{chosen}{why}, over their classes."


def _use(about: About) -> str:
    scale = plain(about.scale)
    nominal = (
        f"* Scale: **{scale}**. A radiograph has no millimetres: the spacing in the headers is the "
        "generator's working grid, and lengths and volumes measured here are not a patient's."
        if about.scale == "nominal"
        else f"* Scale: {scale}."
    )
    return (
        "## What it is for\n\n"
        "Pretraining segmentation networks on chest CT, and measuring whether that helps; "
        "testing pipelines that read CT.\n\n"
        "**Not for**\n\n"
        "* diagnosis, treatment, or any statement about the patient whose radiograph was used;\n"
        "* evaluation: a score on these volumes is not a score on CT;\n"
        "* learning what disease looks like in CT: the class is the radiograph's, and nothing "
        "assures that the volume shows it;\n"
        "* counting as patients: several volumes may come from one radiograph or one patient. "
        "Split by column `patient`.\n\n"
        "**Known limits**\n\n"
        f"{nominal}\n"
        "* Depth is invented: one projection does not determine it.\n"
        "* A generator repeats what it learned. Those who evaluate on its training CT, or on cases "
        "near them, must look for overlap first (`synth-ct corpus audit`)."
    )


def _sources(about: About) -> str:
    return "## Sources\n\n" + "\n".join(line for s in about.sources for line in _source(s))


def _source(source: Source) -> Iterable[str]:
    citation = f" {plain(source.citation).rstrip('.')}." if source.citation else ""
    yield f"* {source.role}: **{plain(source.title)}**, licence {plain(source.licence)}.{citation}"
    yield from (f"  * {plain(caution)}" for caution in source.cautions)


def _age_gap(about: About) -> str:
    films = (source for source in about.sources if source.role == "radiographs")
    if not any(CHILDREN.search(text) for s in films for text in (s.title, *s.cautions)):
        return ""
    return (
        "## The age gap\n\n"
        "The radiographs are of children; the generator's idea of anatomy comes from "
        f"{plain(about.trained_on)}. Proportions, heart size, ribs and bone of the volumes lean "
        "towards what it learned. They are CT neither of these children nor of any age group, and "
        "results on them say nothing about children."
    )


# ---- numbers -----------------------------------------------------------------------------------


def _accounting(about: About, counts: Tally, corpus: Path) -> str:
    totals = about.counts
    rows = [
        ("total", totals.total, ""),
        ("committed", totals.committed, "has a volume"),
        ("rejected", totals.rejected, "made, failed the quality gate, not kept"),
        ("quarantined", totals.quarantined, "its input could not be used"),
    ]
    described = [(n, _count(k), _share(k, totals.total), what) for n, k, what in rows]
    text = "## Every item accounted for\n\n" + _table(
        ("items", "count", "share", "meaning"), described, "lrrl"
    )
    if about.codes:
        codes = [(code(name), _count(number)) for name, number in about.codes.items()]
        text += "\n\nWhy items were set aside:\n\n" + _table(("code", "count"), codes, "lr")
    patients, films = distinct(corpus, "patient"), distinct(corpus, "radiograph_sha256")
    made = totals.committed + totals.rejected
    known = [
        f"{_count(number)} {what}"
        for number, what in ((films, "radiographs"), (patients, "patients"))
        if number
    ]
    where = f", from {' of '.join(known)}" if known else ""
    return f"{text}\n\n{_count(made)} volumes were made{where}.\n\n{_grids(counts)}"


def _grids(counts: Tally) -> str:
    common = counts.grids.most_common(MOST_GRIDS)
    rows = [
        (" x ".join(map(str, shape)), " x ".join(f"{s:.4g}" for s in spacing), _count(number))
        for (shape, spacing), number in common
    ]
    more = len(counts.grids) - len(common)
    if more > 0:
        rest = counts.grids.total() - sum(number for _, number in common)
        rows.append((f"{_count(more)} other grids", "", _count(rest)))
    return _table(("voxels", "spacing (mm)", "volumes"), rows, "llr") if rows else ""


def _acceptance(about: About, counts: Tally) -> str:
    gate = about.recipe.get("gate")
    rules = {
        "enforce": "A volume that fails a quality check is not kept.",
        "record": "A volume that fails a quality check is kept, and its row says why it failed.",
    }
    rows = [
        (
            plain(name or "not said"),
            _count(n["committed"] + n["rejected"]),
            _count(n["committed"]),
            _count(n["passed"]),
            _share(n["passed"], n["committed"] + n["rejected"]),
        )
        for name, n in sorted(counts.classes.items())
    ]
    head = ("class of the radiograph", "made", "volumes", "passed every check", "share passed")
    text = f"## Acceptance\n\n{rules.get(str(gate), '')}\n\n{_table(head, rows, 'lrrrr')}"
    if counts.reasons:
        failed = sorted(counts.reasons.items(), key=lambda item: (-item[1].total(), item[0]))
        reasons = [(code(n), _count(c["rejected"]), _count(c["committed"])) for n, c in failed]
        text += "\n\n" + _table(("first check that failed", "not kept", "kept"), reasons, "lrr")
    return text


def _quality(figures: dict[str, Figure]) -> str:
    if not figures:
        return "## Quality figures\n\nNone were measured."
    percentiles = (1, 5, 25, 50, 75, 95, 99)
    head = ("figure", *(f"{p} %" for p in percentiles), "failed: 50 %", "not measured")
    rows = [
        (
            code(name),
            *_percentiles(figure.passed.values, percentiles),
            *_percentiles(figure.failed.values, (50,)),
            _count(figure.missing),
        )
        for name, figure in figures.items()
    ]
    return (
        "## Quality figures\n\nPercentiles over the volumes that passed every check, and the "
        "median of those that failed one.\n\n"
        f"{_table(head, rows, 'l' + 'r' * (len(head) - 1))}\n\n"
        f"![Histograms of the quality figures]({HISTOGRAMS})"
    )


def _unusual(figure: Figure) -> str:
    if not figure.seen:
        return ""
    import numpy as np

    scores = np.concatenate([np.asarray(s.values) for s in (figure.passed, figure.failed)])
    return (
        "## How unusual the radiographs are to the generator\n\n"
        f"`{OUT_OF_DISTRIBUTION}` is a film's distance to the nearest film the generator was "
        "trained on, as a multiple of how far these are from one another: 1 is usual. "
        f"Median {np.median(scores):.3g}; {100 * float((scores > 1).mean()):.1f} % exceed 1, "
        f"{100 * float((scores > 2).mean()):.1f} % exceed 2. Its histogram is the last above."
    )


# ---- files -------------------------------------------------------------------------------------


def _opening() -> str:
    return (
        f"## How to open it\n\n{OPENING}\n\n"
        "Without our software: volumes are NIfTI-1 (int16 HU, RAS+, millimetres), the manifest is "
        "Parquet (`pandas.read_parquet`). Rows with `accepted` false have no volume. gzip and "
        "NIfTI notice few damaged files: compare `file_sha256`, or run `synth-ct corpus verify`."
    )


def _layout(shown: int, figures: bool) -> str:
    rows = [
        ("`manifest.parquet`", "one row for every volume made, sorted by id"),
        ("`volumes/<id[:2]>/<id>.nii.gz`", "the volumes"),
        ("`previews/<id[:2]>/<id>.png`", "three planes of each"),
        ("`quarantine/<id[:2]>/<id>.json`", "why an item has no volume"),
        ("`receipts/`", "the same rows as lines of JSON, and the quarantine's"),
        ("`corpus.json`, `record.json`", "this card for machines; what made the folder"),
    ]
    if shown or figures:
        rows.append((f"`{PICTURES}/`", "this card's pictures"))
    rows.append(("`sources.csv`", "local, where it exists: which file is which id. Never pass on"))
    return "## Files\n\n" + _table(("file", "what"), rows, "ll")


def _provenance(about: About, counts: Tally) -> str:
    models = ", ".join(code(model.strip()) for model in about.model.split(","))
    samplers = ", ".join(code(name) for name in sorted(counts.samplers))
    rows = [
        ("digest", code(about.digest)),
        ("generator", f"{plain(about.generator)}, fingerprint {models}"),
        ("sampler", samplers),
        ("kind, evidence", f"{about.kind}, {about.evidence}"),
    ]
    numerics = json.dumps(about.numerics, indent=1)
    recipe = json.dumps(about.recipe, indent=1)
    return (
        f"## Provenance\n\n{_table(('', ''), rows, 'll')}\n\n"
        "The digest is sha256 over `id voxel_sha256 accepted reason` of all rows. Within one "
        "numerics fingerprint the same recipe gives the same digest.\n\n"
        f"Recipe:\n\n```json\n{recipe}\n```\n\n"
        f"Numerics, by the fingerprint in the rows:\n\n```json\n{numerics}\n```"
    )


# ---- Markdown ----------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Somebody's words as one line of text: no markup, no HTML, no table cell can come of them."""
    return re.sub(r"([\\`*_\[\]<>|#~$!&])", r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Somebody's word between backticks."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', '/')}`" if text else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    rule = ["---:" if side == "r" else "---" for side in align]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def _count(number: int) -> str:
    return f"{number:,}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def _percentiles(values: Sequence[float], wanted: Sequence[int]) -> list[str]:
    import numpy as np

    if not len(values):
        return [""] * len(wanted)
    return [f"{value:.3g}" for value in np.percentile(values, wanted)]
