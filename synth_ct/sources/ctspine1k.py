"""CTSpine1K: 1,005 CTs with vertebrae, `<name>.nii.gz` and `<name>_seg.nii.gz` at any depth.

Four collections of other purposes in one: colonography, head and neck, liver, COVID-19 chest. Every
case goes to "train": folds are drawn downstream.
"""

from pathlib import Path

from synth_ct.cohort.case import Case, Findings, Found, Importer
from synth_ct.cohort.divide import all_train
from synth_ct.kit.quarantine import SetAside
from synth_ct.sources.labels import read_labelled
from synth_ct.sources.pairs import matched
from synth_ct.sources.paths import name_below, source_folder, visible_files
from synth_ct.sources.volume_files import stem_of, suffix_of

VERTEBRAE = (*(f"C{i}" for i in range(1, 8)), *(f"T{i}" for i in range(1, 13)))
CLASSES = dict(enumerate((*VERTEBRAE, *(f"L{i}" for i in range(1, 7))), start=1))
LABEL_ENDING = "_seg"


def find(source: Path) -> Findings:
    """Volumes and labels matched by name; folders may separate them in any way."""
    files, set_aside = visible_files(source_folder(source))
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    for file in filter(suffix_of, files):
        stem = stem_of(file)
        part = labels if stem.endswith(LABEL_ENDING) else images
        case = stem.removesuffix(LABEL_ENDING)
        if case in part:
            set_aside.append(_same_name(source, file, part[case]))
        else:
            part[case] = file
    found, alone = matched(source, images, labels)
    return Findings(found=found, set_aside=[*set_aside, *alone], classes=CLASSES)


def _same_name(source: Path, file: Path, first: Path) -> SetAside:
    return SetAside(
        code="E_PAIR_NAME",
        file=name_below(source, file),
        cause=f"has the name of {name_below(source, first)}: which label belongs to which is open",
        remedy="give every case a name of its own",
    )


def read(found: Found, workspace: Path) -> Case:
    """Read one case."""
    return read_labelled(found, workspace, CLASSES)


IMPORTER = Importer(
    name="ctspine1k",
    kind="labelled",
    find=find,
    read=read,
    divide=all_train,
    about={
        "title": "CTSpine1K, vertebrae in CT",
        "licence": "CC BY-NC-SA 4.0; the images under the terms of their four collections",
        "evidence": "real",
        "cautions": ["some scans are cropped around the spine", "sixth lumbar vertebrae occur"],
    },
)
