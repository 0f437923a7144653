"""Images and their labels, matched by name; what lacks its partner is said, all at once."""

from collections.abc import Mapping
from pathlib import Path

from synth_ct.cohort.case import Found
from synth_ct.kit.quarantine import SetAside, printable
from synth_ct.sources.paths import name_below

MISSING = "E_PAIR_MISSING"


def matched(
    root: Path, images: Mapping[str, Path], labels: Mapping[str, Path], also: tuple[Path, ...] = ()
) -> tuple[list[Found], list[SetAside]]:
    """Case name -> image and case name -> label become candidates; the rest is set aside.

    `also` are files that decide what a label means: a change in them is a change of the case.
    """
    found = [
        Found(
            name=name_below(root, images[case]),
            files=(images[case],),
            labels=(labels[case], *also),
            patient=printable(case),
        )
        for case in sorted(images.keys() & labels.keys())
    ]
    alone = [missing(name_below(root, images[c]), "label") for c in images.keys() - labels.keys()]
    alone += [missing(name_below(root, labels[c]), "image") for c in labels.keys() - images.keys()]
    return found, sorted(alone, key=lambda row: row.file)


def missing(file: str, partner: str) -> SetAside:
    """A row for a file whose partner is not there."""
    return SetAside(
        code=MISSING,
        file=file,
        cause=f"its {partner} is not there, so it cannot be used for training or scoring",
        remedy=f"add the {partner} under the name the data set's layout asks for, or remove it",
    )
