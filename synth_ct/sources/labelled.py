"""Any labelled CT set in nnU-Net v2 raw or Decathlon layout, with whatever classes it names.

Every case goes to "train": labelled sets are cross-validated, and folds are drawn downstream.
"""

from pathlib import Path

from synth_ct.cohort.case import Case, Findings, Found, Importer
from synth_ct.cohort.divide import all_train
from synth_ct.sources.decathlon import TABLE, dataset_root, find_listed, find_nnunet, read_table
from synth_ct.sources.labels import read_labelled
from synth_ct.sources.paths import source_folder


def find(source: Path) -> Findings:
    """The training cases of the layout `dataset.json` speaks of."""
    root = dataset_root(source_folder(source))
    table = read_table(root / TABLE)
    if table.is_nnunet:
        return find_nnunet(root, table, source)
    return find_listed(root, table, source)


def read(found: Found, workspace: Path) -> Case:
    """Read one case; the table that names its classes travels with it."""
    return read_labelled(found, workspace, read_table(found.labels[1]).classes)


IMPORTER = Importer(
    name="labelled",
    kind="labelled",
    find=find,
    read=read,
    divide=all_train,
    about={
        "title": "labelled CT",
        "licence": "as its source says",
        "evidence": "real",
        "cautions": [
            "a case counts as a patient: several scans of one person are not recognised here",
        ],
    },
)
