"""The report: one HTML page that needs nothing else, and the same numbers for machines.

The page has no script and may fetch nothing; equal studies give equal bytes.
"""

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from finetune.results import Fit
from reports.background import corpora, cost, not_shown, provenance, quarantine
from reports.markup import Markup, element, paragraph, spaced
from reports.sections import answer, contrasts, gap_figure, learning, organs, scratch
from reports.study import ReportInput
from reports.tables import fit_rows, gap_rows
from reports.wording import Words
from synth_ct.kit.durable import write_text

PAGE, NUMBERS = "report.html", "report.json"
CONTENTS = {
    "contrasts": "contrasts", "scratch": "scratch", "gaps": "gaps", "organs": "organs",
    "curves": "curves", "corpora": "corpora", "quarantine": "set aside", "cost": "cost",
    "not-shown": "not shown here", "provenance": "provenance",
}  # fmt: skip


def write_report(study: ReportInput, out: Path) -> None:
    """Write `report.html` and `report.json` into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(numbers(study), indent=1, sort_keys=True, allow_nan=False)
    write_text(out / NUMBERS, text + "\n")
    write_text(out / PAGE, page(study))


def page(study: ReportInput) -> str:
    """The whole page, the most important first."""
    words = Words(study.comparison, study.protocol)
    links = [element("a", text, href=f"#{anchor}") for anchor, text in CONTENTS.items()]
    body = element(
        "body",
        element("h1", f"{study.run}: does pretraining on synthetic CT help?"),
        paragraph(study.date, class_="faint"),
        answer(study, words),
        element("nav", *spaced(links, " · "), aria_label="Contents"),
        contrasts(study, words),
        scratch(study, words),
        gap_figure(study, words),
        organs(study, words),
        learning(study, words),
        corpora(study, words),
        quarantine(study),
        cost(study),
        not_shown(study, words),
        provenance(study, words),
    )
    return f"<!doctype html>\n{element('html', _head(study), body, lang='en')}\n"


def _head(study: ReportInput) -> Markup:
    style = files("reports").joinpath("page.css").read_text(encoding="utf-8")
    assert "</" not in style, "would end the style"
    said = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{said}'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{study.run}: report"),
        element("link", rel="icon", href="data:,"),
        element("style", Markup(style)),
    )


# ---- for machines ------------------------------------------------------------------------------


def numbers(study: ReportInput) -> dict[str, Any]:
    """What `report.json` holds: Dice 0-1, gaps in points."""
    return {
        "evidence": study.comparison.evidence,
        "fits": fit_rows(study.fits),
        "gaps": gap_rows(study.comparison),
        "quarantine": [
            {"where": a.where, "code": a.code, "count": a.count} for a in study.quarantine
        ],
        "cost": [
            {
                "stage": c.stage,
                "seconds": c.seconds,
                "device": c.device,
                "device_hours": c.device_hours,
            }
            for c in study.cost
        ],
        "provenance": {
            "run": study.run,
            "date": study.date,
            "recipe": study.provenance.recipe,
            "code": study.provenance.code,
            "corpora": {corpus.arm: corpus.digest for corpus in study.corpora},
            "versions": dict(study.provenance.versions),
            "fingerprints": dict(study.provenance.fingerprints),
            "fits": {_name(fit): fit.fingerprint for fit in study.fits},
            "protocol": study.protocol.model_dump(mode="json"),
        },
    }


def _name(fit: Fit) -> str:
    return f"{fit.dataset}-{fit.arch}-{fit.arm}-f{fit.fold}-s{fit.seed}"
