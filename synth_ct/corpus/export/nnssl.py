"""nnssl: `pretrain_data.json` leads from collection to data set, subject, session and image."""

import json
from pathlib import Path
from typing import Any

from synth_ct.corpus.export.content import (
    accepted,
    data_set,
    licences,
    link_volume,
    reference,
    statement,
)
from synth_ct.corpus.reader import Corpus
from synth_ct.corpus.row import Row
from synth_ct.kit.durable import write_text

OPENING = (
    "nnssl: put `DatasetNNN_...` into `$nnssl_raw`; `pretrain_data.json` lists the volumes by "
    "patient, with paths that begin there."
)


def write(corpus: Corpus, workspace: Path, name: str) -> None:
    """`DatasetNNN_Name/` with the volumes; their paths begin at `$nnssl_raw`, wherever that is."""
    place = data_set(workspace, name)
    subjects: dict[str, dict[str, Any]] = {}
    for row in accepted(corpus):
        image = f"imagesTr/{row.id[:2]}/{row.id}.nii.gz"
        link_volume(corpus, row, place.folder / image)
        empty = {"subject_id": row.patient, "subject_info": {}, "sessions": {}}
        sessions = subjects.setdefault(row.patient, empty)["sessions"]
        sessions[row.id] = _session(row, f"$nnssl_raw/{place.name}/{image}")
    info = {
        "description": statement(corpus),
        "reference": reference(corpus),
        "licence": "; ".join(licences(corpus)),
    }
    index = str(place.number)
    whole = {"dataset_index": index, "name": place.name, "dataset_info": info, "subjects": subjects}
    collection = {
        "collection_index": place.number,
        "collection_name": place.name,
        "datasets": {index: whole},
    }
    write_text(place.folder / "pretrain_data.json", json.dumps(collection, indent=1))


def _session(row: Row, path: str) -> dict[str, Any]:
    """One volume is one session: each came from a film of its own, or was sampled anew."""
    image = {
        "name": f"{row.id}.nii.gz",
        "image_path": path,
        "modality": "CT",
        "image_info": {"synthetic": True, "model": row.model, "scale": row.scale},
        "associated_masks": None,
    }
    return {"session_id": row.id, "session_info": {}, "images": [image]}
