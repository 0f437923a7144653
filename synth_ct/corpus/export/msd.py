"""Medical Segmentation Decathlon: the volumes are its `test` list, the place for unlabelled ones.

MONAI reads it: `load_decathlon_datalist(file, is_segmentation=False, data_list_key="test")`.
"""

import json
from pathlib import Path

from synth_ct.corpus.export.content import (
    NAME,
    accepted,
    licences,
    link_volume,
    reference,
    statement,
)
from synth_ct.corpus.reader import Corpus
from synth_ct.kit.durable import write_text

OPENING = (
    "Medical Segmentation Decathlon: `dataset.json` and `imagesTs/`. There are no labels, so all "
    'volumes are in the list `test`. MONAI: `load_decathlon_datalist("dataset.json", '
    'is_segmentation=False, data_list_key="test")`.'
)


def write(corpus: Corpus, workspace: Path, name: str) -> None:
    """`dataset.json` and `imagesTs/`."""
    test = []
    for row in accepted(corpus):
        image = f"imagesTs/{row.id}.nii.gz"
        link_volume(corpus, row, workspace / image)
        test.append(f"./{image}")
    about = {
        "name": NAME,
        "description": statement(corpus),
        "reference": reference(corpus),
        "licence": "; ".join(licences(corpus)),
        "release": corpus.about.digest,
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background"},
        "numTraining": 0,
        "numTest": len(test),
        "training": [],
        "test": test,
    }
    write_text(workspace / "dataset.json", json.dumps(about, indent=1))
