"""Small corpora of random volumes, made without a generator."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from synth_ct.corpus.about import About, Source
from synth_ct.corpus.finish import finish
from synth_ct.corpus.layout import make_folders, preview_file, quarantine_file, volume_file
from synth_ct.corpus.receipts import Receipts, fold
from synth_ct.corpus.row import Entry, Quarantined, Row, line_of, voxel_sha256
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.durable import sha256_of, write_bytes, write_text
from synth_ct.kit.seeds import numpy_random
from synth_ct.kit.volume import Volume, centred_affine, save, spacing_mm

SIDE = 16
ABOUT = About(
    kind="generated",
    evidence="phantom",
    generator="test",
    model="m" * 16,
    trained_on="phantoms",
    recipe={"samples": 1, "seed": 0, "gate": "enforce"},
    sources=(Source(role="radiographs", title="films of phantoms", licence="Apache-2.0"),),
    numerics={"f" * 16: {"device": "cpu"}},
    shape=(SIDE, SIDE, SIDE),
    spacing_mm=(20.0, 20.0, 20.0),
)


def random_entry(corpus: Path, number: int, *, patients: int = 5) -> Entry:
    """Write what belongs to item `number`: every seventh is rejected, every ninth unreadable."""
    sha = sha256_of(f"film {number}".encode())
    item, patient = sha[:16], f"p{number % patients}"
    if number % 9 == 8:
        entry = Quarantined(
            id=item, radiograph_sha256=sha, patient=patient, finding="NORMAL",
            code="E_IMG_TRUNCATED", cause="the file ends early",
        )  # fmt: skip
        write_text(corpus / quarantine_file(item), line_of(entry))
        return entry
    random = numpy_random(0, "corpus", number)
    array = random.integers(-1000, 1000, (SIDE, SIDE, SIDE), dtype=np.int16)
    volume = Volume(array, centred_affine((SIDE, SIDE, SIDE), (20.0, 20.0, 20.0)))
    accepted = number % 7 != 6
    return Row(
        id=item,
        radiograph_sha256=sha,
        patient=patient,
        finding="NORMAL" if number % 2 else "PNEUMONIA/virus",
        sample=0,
        seed=number,
        model="m" * 16,
        sampler="dpmpp_2m/8",
        fingerprint="f" * 16,
        accepted=accepted,
        reason="" if accepted else "lungs",
        file_sha256=save(volume, corpus / volume_file(item)) if accepted else "",
        voxel_sha256=voxel_sha256(array) if accepted else "",
        preview_sha256=write_bytes(corpus / preview_file(item), PREVIEW) if accepted else "",
        shape=array.shape,
        spacing_mm=spacing_mm(volume.affine),
        out_of_distribution=float(random.random()),
        quality={"lung_hu": float(random.normal(-800, 30)), "fat_hu": None},
    )


def _preview() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(file, "PNG")
    return file.getvalue()


PREVIEW = _preview()


def make_corpus(folder: Path, numbers: Sequence[int], *, patients: int = 5) -> About:
    """A finished corpus of these items."""
    with publish(folder, Record(kind="corpus", recipe={"numbers": list(numbers)})) as workspace:
        make_folders(workspace)
        receipts = Receipts(workspace)
        for number in numbers:
            receipts.append([random_entry(workspace, number, patients=patients)])
        return finish(workspace, fold(workspace), ABOUT)
