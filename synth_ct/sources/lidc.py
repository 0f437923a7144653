"""LIDC-IDRI as TCIA delivers it: `LIDC-IDRI-0001/<study>/<series>/*.dcm`, at any depth.

1,018 chest CTs of 1,010 patients. The papers that turn radiographs into CT train on 916 of them
and test on 102: counts of scans, not of patients, in lists that most of them inherit from X2CT-GAN.
Those lists leak: patient LIDC-IDRI-0442, who has two scans, stands in both. Here whole patients are
drawn, in an order that depends on the seed alone, until the test part holds exactly 102 scans; the
counts are the papers', the membership is not, and no patient can straddle the split.

Radiographs (CR, DX) and annotations (XML) that lie in the same tree are passed over.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from synth_ct.cohort.case import Case, Findings, Found, Importer, Split
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.seeds import numpy_random
from synth_ct.sources.dicom import Series, read_series, series_in
from synth_ct.sources.paths import source_folder
from synth_ct.sources.volume_files import Scan, keep

SCANS = 1018
TEST_SCANS = 102
PATIENT_FOLDER = re.compile(r"LIDC-IDRI-\d{4}")


def find(source: Path) -> Findings:
    """The CT series of the tree; a series of doubtful patient is set aside, never guessed."""
    inside = series_in(source_folder(source))
    found: list[Found] = []
    set_aside = list(inside.set_aside)
    for series in inside.series:
        try:
            patient = patient_of(series, source)
        except Refused as refused:
            set_aside.append(refused.row(series.name))
        else:
            found.append(Found(name=series.name, files=series.files, patient=patient))
    return Findings(found=found, set_aside=set_aside, ignored=inside.ignored)


def patient_of(series: Series, source: Path) -> str:
    """Header and folder must name one patient between them; either may be silent."""
    folders = {
        part
        for file in series.files
        for part in file.relative_to(source.parent).parts[:-1]
        if PATIENT_FOLDER.fullmatch(part)
    }
    claims = sorted({*series.patients, *folders})
    if len(claims) == 1:
        return claims[0]
    cause = (
        f"header and folder name different patients ({', '.join(claims)})"
        if claims
        else "neither header nor folder names a patient"
    )
    why = "so a person could end up in both training and test"
    raise Refused("E_DCM_PATIENT", f"{cause}, {why}", "download this patient again")


def read(found: Found, folder: Path) -> Case:
    """One series to a canonical volume at its native spacing."""
    volume, notes, sha256 = read_series(found.files)
    return keep(Scan(volume=volume, sha256=sha256, notes=notes), folder)


def divide(patients: Mapping[str, Sequence[Found]], seed: int) -> dict[str, Split]:
    """102 of 1,018 scans to test; of fewer the same share, rounded, but at least one if it can."""
    scans = sum(map(len, patients.values()))
    least = 1 if len(patients) > 1 else 0
    return divide_exactly(patients, seed, max(least, round(scans * TEST_SCANS / SCANS)))


def divide_exactly(
    patients: Mapping[str, Sequence[Found]], seed: int, test_scans: int
) -> dict[str, Split]:
    """Whole patients in shuffled order to test until it holds `test_scans`; the rest to train.

    A patient whose scans would overshoot is skipped. With enough single-scan patients, as in
    LIDC-IDRI, the count is met exactly; otherwise the test part stays below it.
    """
    names = sorted(patients)
    numpy_random(seed, "divide").shuffle(names)
    splits: dict[str, Split] = {}
    room = test_scans
    for name in names:
        fits = len(patients[name]) <= room
        splits[name] = "test" if fits else "train"
        room -= len(patients[name]) if fits else 0
    return splits


IMPORTER = Importer(
    name="lidc",
    kind="ct",
    find=find,
    read=read,
    divide=divide,
    about={
        "title": "LIDC-IDRI, chest CT",
        "licence": "CC BY 3.0",
        "citation": "Armato et al., Medical Physics 38(2), 2011; doi:10.7937/K9/TCIA.2015.LO9QL9SX",
        "evidence": "real",
        "cautions": [
            "Adults. Diagnostic and screening scans of many scanners, kernels and contrasts.",
            "LUNA16 is a part of it, and published encoders were pretrained on it.",
            "916/102 are the papers' counts, not their lists, which share patient LIDC-IDRI-0442.",
        ],
    },
)
