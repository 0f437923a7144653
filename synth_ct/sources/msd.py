"""Medical Segmentation Decathlon, Task09: 41 abdominal CTs with the spleen.

The spleen must lie at the patient's left of the body, or the case is set aside: copies of this set
whose headers swap the sides have been reported. Every case goes to "train": folds are drawn
downstream.
"""

from pathlib import Path

from synth_ct.cohort.case import Case, Findings, Found, Importer
from synth_ct.cohort.divide import all_train
from synth_ct.sources.decathlon import TABLE, dataset_root, find_listed, read_table
from synth_ct.sources.labels import read_labelled
from synth_ct.sources.paths import source_folder

CLASSES = {1: "spleen"}


def find(source: Path) -> Findings:
    """The training list of `dataset.json`; it must be the spleen task."""
    root = dataset_root(source_folder(source))
    table = read_table(root / TABLE)
    if {number: name.lower() for number, name in table.classes.items()} != CLASSES:
        raise ValueError(
            f"{table.path} has classes {dict(table.classes)}, not the spleen alone; "
            "use `ingest labelled` for other tasks"
        )
    listed = find_listed(root, table, source)
    return Findings(found=listed.found, set_aside=listed.set_aside, classes=CLASSES)


def read(found: Found, workspace: Path) -> Case:
    """Read one case."""
    return read_labelled(found, workspace, CLASSES)


IMPORTER = Importer(
    name="msd-spleen",
    kind="labelled",
    find=find,
    read=read,
    divide=all_train,
    about={
        "title": "Medical Segmentation Decathlon, Task09 Spleen",
        "licence": "CC BY-SA 4.0",
        "evidence": "real",
        "cautions": ["portal venous phase; patients under chemotherapy for liver metastases"],
    },
)
