"""nnU-Net v2's raw data set. There are no labels, so the volumes are in `imagesTs`."""

import json
from pathlib import Path

from synth_ct.corpus.export.content import (
    accepted,
    data_set,
    licences,
    link_volume,
    reference,
    statement,
)
from synth_ct.corpus.reader import Corpus
from synth_ct.kit.durable import write_text

OPENING = (
    "nnU-Net v2: put `DatasetNNN_...` into `$nnUNet_raw`. There are no labels: predict from "
    "`imagesTs`, or add your own as `labelsTr` and move their volumes to `imagesTr`."
)


def write(corpus: Corpus, workspace: Path, name: str) -> None:
    """`DatasetNNN_Name/{dataset.json,imagesTs/<id>_0000.nii.gz}`; channel 0 is CT."""
    place = data_set(workspace, name)
    for row in accepted(corpus):
        link_volume(corpus, row, place.folder / "imagesTs" / f"{row.id}_0000.nii.gz")
    about = {
        "name": place.name,
        "description": statement(corpus),
        "reference": reference(corpus),
        "licence": "; ".join(licences(corpus)),
        "release": corpus.about.digest,
        "converted_by": "synth-ct",
        "channel_names": {"0": "CT"},
        "labels": {"background": 0},
        "numTraining": 0,
        "file_ending": ".nii.gz",
    }
    write_text(place.folder / "dataset.json", json.dumps(about, indent=1))
