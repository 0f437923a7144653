"""BCV, "Beyond the Cranial Vault": 30 abdominal CTs with 13 organs (MICCAI 2015 challenge).

Read as Synapse delivers it (`img/img0001.nii.gz`, `label/label0001.nii.gz`, at any depth), in
Decathlon folders with the same names, or by a Decathlon `dataset.json`. Test images come without
labels and are passed over. Every case goes to "train": folds are drawn downstream.
"""

import re
from pathlib import Path

from synth_ct.cohort.case import Case, Findings, Found, Importer
from synth_ct.cohort.divide import all_train
from synth_ct.cohort.organs import BTCV
from synth_ct.sources.decathlon import TABLE, dataset_root, find_listed, read_table
from synth_ct.sources.labels import read_labelled
from synth_ct.sources.pairs import matched
from synth_ct.sources.paths import source_folder, visible_files
from synth_ct.sources.volume_files import stem_of, suffix_of

IMAGE = re.compile(r"img(\d+)")
LABEL = re.compile(r"label(\d+)")
WITHOUT_LABELS = ("testing", "imagests")


def find(source: Path) -> Findings:
    """Pairs of equal number, or the pairs `dataset.json` lists."""
    root = dataset_root(source_folder(source))
    if (root / TABLE).is_file():
        listed = find_listed(root, read_table(root / TABLE), source)
        return Findings(found=listed.found, set_aside=listed.set_aside, classes=BTCV)
    files, escapes = visible_files(source)
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    for file in files:
        parents = {part.lower() for part in file.relative_to(source).parts[:-1]}
        if not suffix_of(file) or parents & set(WITHOUT_LABELS):
            continue
        stem = stem_of(file)
        if match := IMAGE.fullmatch(stem):
            images[match[1]] = file
        elif match := LABEL.fullmatch(stem):
            labels[match[1]] = file
    found, alone = matched(source, images, labels)
    return Findings(found=found, set_aside=[*escapes, *alone], classes=BTCV)


def read(found: Found, workspace: Path) -> Case:
    """Read one case."""
    return read_labelled(found, workspace, BTCV)


IMPORTER = Importer(
    name="bcv",
    kind="labelled",
    find=find,
    read=read,
    divide=all_train,
    about={
        "title": "BCV, multi-organ abdominal CT",
        "licence": "by registration with Synapse (syn3193805); not redistributable",
        "evidence": "real",
        "cautions": ["portal venous phase; patients with colorectal metastases or hernias"],
    },
)
