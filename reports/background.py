"""The parts of the page that tell what the results rest on, and what they leave open."""

import json
from math import fsum

from finetune.results import Fit
from reports.markup import Markup, element, folded, items, joined, paragraph, picture, spaced, table
from reports.sections import QUESTION, section
from reports.study import CorpusShown, QualityFigure, ReportInput, Sample
from reports.wording import FIRST_READ, QUALITY, Words, counted, measured, network, quality

LISTED = 12
"""Names of a long list; the rest are counted."""
DIGITS = 16
"""Of a digest; `report.json` has it whole."""


def corpora(study: ReportInput, words: Words) -> Markup:
    """How good the volumes were that networks were pretrained on; first those in question."""
    shown = sorted(study.corpora, key=lambda corpus: corpus.arm != QUESTION[0])
    empty = paragraph("No corpus was looked at.")
    return section("corpora", "The corpora", *([_corpus(c, words) for c in shown] or [empty]))


def _corpus(corpus: CorpusShown, words: Words) -> Markup:
    counts = (
        f"{counted(corpus.committed, 'volume')}, {corpus.rejected} rejected by the quality gate, "
        f"{counted(corpus.quarantined, 'input')} set aside. Digest "
    )
    digest = element("code", corpus.digest[:DIGITS])
    told = joined([*_quality(corpus), *_samples(corpus)])
    if told and corpus.arm != QUESTION[0]:
        told = folded("How good they are", told)
    return joined([element("h3", words.arm(corpus.arm)), paragraph(counts, digest, "."), told])


def _quality(corpus: CorpusShown) -> list[Markup]:
    """The figures that a reader needs, and the others."""
    known = list(QUALITY)
    place = {name: n for n, name in enumerate(known)}
    figures = sorted(corpus.figures, key=lambda f: place.get(f.name, len(known)))
    first = [f for f in figures if f.name in known[:FIRST_READ]]
    rest = [f for f in figures if f not in first]
    tables = [_figures("Quality of the volumes", first, corpus.spread)] if first else []
    if rest:
        title = f"{len(rest)} further quality figures"
        tables.append(folded(title, _figures("Further figures", rest, corpus.spread)))
    return tables


def _figures(caption: str, figures: list[QualityFigure], spread: str) -> Markup:
    rows = [
        [
            quality(f.name),
            f"{measured(f.name, f.median)} [{measured(f.name, f.low)}, {measured(f.name, f.high)}]",
        ]
        for f in figures
    ]
    return table(caption, ["Figure", f"Median [{spread}]"], rows)


def _samples(corpus: CorpusShown) -> list[Markup]:
    if not corpus.samples:
        return []
    by = quality(corpus.ranked_by)
    rule = f"The worst, the median and the best volume by {by}; nobody chose them."
    films = any(sample.radiograph for sample in corpus.samples)
    beside = " With each, the radiograph that it was made from." * films
    synthetic = " SYNTHETIC: made by a network, not measured, not for diagnosis."
    samples = [_sample(sample, corpus.ranked_by) for sample in corpus.samples]
    return [
        paragraph(rule, beside, synthetic * (corpus.arm != "real")),
        element("div", *samples, class_="samples"),
    ]


def _sample(sample: Sample, figure: str) -> Markup:
    pictures = [picture(sample.preview, f"Volume {sample.id} in three planes")]
    if sample.radiograph is not None:
        pictures.append(picture(sample.radiograph, f"The radiograph that {sample.id} is made from"))
    said = element(
        "figcaption", element("strong", sample.rank), f": {measured(figure, sample.value)}, ",
        element("code", sample.id), "" if sample.radiograph else ", no radiograph",
    )  # fmt: skip
    return element("figure", element("div", *pictures, class_="pair"), said, class_="sample")


def quarantine(study: ReportInput) -> Markup:
    """What was set aside, and why."""
    if not study.quarantine:
        return section("quarantine", "Set aside", paragraph("Nothing was set aside."))
    rows = [[a.where, a.code, a.meaning, str(a.count)] for a in study.quarantine]
    total = sum(aside.count for aside in study.quarantine)
    caption = f"{counted(total, 'input')} set aside, and why"
    return section(
        "quarantine",
        "Set aside",
        table(caption, ["Where", "Code", "Meaning", "Inputs"], rows, words=3),
    )


def cost(study: ReportInput) -> Markup:
    """Time and devices."""
    rows = [[c.stage, c.device, duration(c.seconds), f"{c.device_hours:.2f}"] for c in study.cost]
    total = fsum(c.device_hours for c in study.cost)
    together = ["all together", "", duration(fsum(c.seconds for c in study.cost)), f"{total:.2f}"]
    return section(
        "cost",
        "What it cost",
        table("Stages", ["Stage", "Device", "Time", "Device hours"], [*rows, together], words=2)
        if rows
        else paragraph("Nothing was timed."),
    )


def duration(seconds: float) -> str:
    """`42 s`, `12 min`, `3 h 05 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


# ---- what is not here --------------------------------------------------------------------------


def not_shown(study: ReportInput, words: Words) -> Markup:
    """What a reader may not conclude, and what was not run."""
    return element(
        "section",
        element("h2", "Not shown here"),
        items([*_limits(study, words), *_not_run(study, words), *study.not_run]),
        class_="limits",
        id="not-shown",
    )


def _limits(study: ReportInput, words: Words) -> list[str]:
    ages = {
        "real": "Age gap: the radiographs are of children, the CT of adults; what that costs is "
        "not measured here.",
    }.get(
        words.evidence,
        "Patients: a study with them has an age gap (radiographs of children, CT of adults), "
        "which these data do not have.",
    )
    seeds = len(study.protocol.seeds)
    return [
        ages,
        "Scale: a radiograph does not tell how large a patient is; the scale of volumes made "
        "from one is nominal.",
        "Place: pretraining sees chests, the organs that are segmented lie in the abdomen.",
        "One seed of the generator: another training of it may give another corpus.",
        f"{counted(seeds, 'seed')} of pretraining and fine-tuning.",
        "Diagnosis: no volume and no network of this run is fit for it.",
    ]


def _not_run(study: ReportInput, words: Words) -> list[str]:
    rows = [row for row in study.comparison.gaps if row.status == "not run"]
    contrasts = list(dict.fromkeys(words.contrast(row.arm, row.baseline) for row in rows))
    said = [f"Not run: {', '.join(contrasts)}."] if contrasts else []
    missing = study.comparison.missing
    if missing:
        rest = f" and {len(missing) - LISTED} more" * (len(missing) > LISTED)
        fits = f"{counted(len(missing), 'fit')} of the protocol"
        said.append(f"{fits} missing: {', '.join(missing[:LISTED])}{rest}.")
    absent = {name: n for name, n in sorted(study.comparison.absent.items()) if n}
    said += [
        f"{words.dataset(name)}: {counted(n, 'score')} left out, since neither reference nor "
        "prediction has the organ."
        for name, n in absent.items()
    ]
    return said


# ---- where every number comes from -------------------------------------------------------------


def provenance(study: ReportInput, words: Words) -> Markup:
    """Recipe, protocol, fingerprints, versions."""
    origin = study.provenance
    artifacts = sorted(origin.fingerprints.items())
    versions = [f"{name} {version}" for name, version in sorted(origin.versions.items())]
    made_by = [element("code", origin.code), *versions]
    return section(
        "provenance",
        "Where every number comes from",
        paragraph("Sources ", *spaced(made_by, ", "), "."),
        folded("The recipe", element("pre", origin.recipe)),
        folded("The protocol, frozen before the first fit", _json(study.protocol.model_dump())),
        folded(
            f"Fingerprints of {counted(len(artifacts), 'artifact')}",
            table("Artifacts", ["Artifact", "Fingerprint"], artifacts, words=2),
        ),
        folded(f"Fingerprints of {counted(len(study.fits), 'fit')}", _fits(study, words)),
        folded("How the fits were trained", *_configs(study.fits, words)),
    )


def _fits(study: ReportInput, words: Words) -> Markup:
    head = ["Fit", "Arm", "Made from", "Fold", "Seed", "Steps", "Fingerprint"]
    rows = [
        [
            f"{words.dataset(fit.dataset)}, {network(fit.arch)}", words.arm(fit.arm),
            ", ".join(f"{name} {print_}" for name, print_ in sorted(fit.inputs.items())),
            str(fit.fold), str(fit.seed), str(fit.steps), fit.fingerprint,
        ]
        for fit in study.fits
    ]  # fmt: skip
    return table("Fits", head, rows, words=3)


def _configs(fits: tuple[Fit, ...], words: Words) -> list[Markup]:
    """Each distinct configuration once, with whom it is of."""
    users: dict[str, dict[str, None]] = {}
    for fit in fits:
        text = json.dumps(fit.config, indent=1, sort_keys=True)
        users.setdefault(text, {})[f"{words.dataset(fit.dataset)}, {network(fit.arch)}"] = None
    return [
        joined([element("h3", "; ".join(names)), element("pre", text)])
        for text, names in users.items()
    ]


def _json(value: object) -> Markup:
    return element("pre", json.dumps(value, indent=1, sort_keys=True))
