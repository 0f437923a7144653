"""Every importer by its name on the command line."""

from pathlib import Path

from synth_ct.cohort.case import Importer
from synth_ct.sources import (
    bcv,
    chest_xray2017,
    ctspine1k,
    folder,
    labelled,
    lidc,
    msd,
    radiographs,
)

IMPORTERS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        lidc.IMPORTER,
        chest_xray2017.IMPORTER,
        bcv.IMPORTER,
        msd.IMPORTER,
        ctspine1k.IMPORTER,
        folder.IMPORTER,
        radiographs.IMPORTER,
        labelled.IMPORTER,
    )
}


def importer_for(name: str, patients: Path | None) -> Importer:
    """The importer of that name; only plain radiographs take a table of patients."""
    if patients is None:
        return IMPORTERS[name]
    if name != radiographs.IMPORTER.name:
        raise ValueError(f"--patients is for `ingest radiographs`; {name} names its own patients")
    return radiographs.importer_with(patients)
