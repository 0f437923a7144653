"""A maker without a generator: volumes from seeds, and whatever may go wrong, on request."""

import errno
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from corpora import PREVIEW

from synth_ct.corpus.about import About, Source
from synth_ct.corpus.layout import preview_file, volume_file
from synth_ct.corpus.row import Quarantined, Row, voxel_sha256
from synth_ct.kit.durable import sha256_of, write_bytes
from synth_ct.kit.volume import Volume, centred_affine, save, spacing_mm
from synth_ct.production.order import Item, seed_of
from synth_ct.production.produce import Order

SIDE = 16


@dataclass(frozen=True, kw_only=True)
class LoadFake:
    """Sets of items, by the number in their class, that misbehave."""

    workspace: Path
    seconds: float = 0.0
    corrupt: frozenset[str] = frozenset()
    killers: frozenset[str] = frozenset()
    rejected: frozenset[str] = frozenset()
    full_disk: frozenset[str] = frozenset()
    kill_once: frozenset[str] = frozenset()
    """Dies over these the first time, between the files and the receipt."""

    def __call__(self) -> "Fake":
        return Fake(self)


class Fake:
    together = 4

    def __init__(self, how: LoadFake) -> None:
        self.how = how

    def read(self, item: Item) -> Item | Quarantined:
        if item.finding in self.how.killers:
            os.kill(os.getpid(), signal.SIGKILL)
        if item.finding in self.how.corrupt:
            return Quarantined(
                id=item.id,
                radiograph_sha256=item.radiograph_sha256,
                patient=item.patient,
                finding=item.finding,
                code="E_IMG_TRUNCATED",
                cause="the file ends early",
            )
        return item

    def volumes(self, films: Sequence[Item]) -> list[np.ndarray]:
        time.sleep(self.how.seconds * len(films))
        return [
            np.random.default_rng(f.seed).integers(-1000, 1000, (SIDE,) * 3, np.int16)
            for f in films
        ]

    def keep(self, item: Item, made: np.ndarray) -> Row:
        if item.finding in self.how.full_disk:
            raise OSError(errno.ENOSPC, "No space left on device", item.id)
        accepted = item.finding not in self.how.rejected
        volume = Volume(made, centred_affine((SIDE,) * 3, (20.0,) * 3))
        workspace = self.how.workspace
        file = save(volume, workspace / volume_file(item.id)) if accepted else ""
        preview = write_bytes(workspace / preview_file(item.id), PREVIEW) if accepted else ""
        self._die_once(item)
        return Row(
            id=item.id,
            radiograph_sha256=item.radiograph_sha256,
            patient=item.patient,
            finding=item.finding,
            sample=item.sample,
            seed=item.seed,
            model="m" * 16,
            sampler="fake/1",
            fingerprint="f" * 16,
            accepted=accepted,
            reason="" if accepted else "lungs",
            file_sha256=file,
            voxel_sha256=voxel_sha256(made) if accepted else "",
            preview_sha256=preview,
            shape=made.shape,
            spacing_mm=spacing_mm(volume.affine),
        )

    def _die_once(self, item: Item) -> None:
        died = self.how.workspace / f".died-{item.id}"
        if item.finding in self.how.kill_once and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def fake_order(count: int) -> Order:
    """Items 0 .. count-1, whose class is their number."""
    items = []
    for number in range(count):
        sha = sha256_of(f"film {number}".encode())
        item = Item(
            id=sha[:16],
            sample=0,
            seed=seed_of(0, sha[:16]),
            radiograph_sha256=sha,
            patient=f"p{number % 7}",
            finding=str(number),
            path=f"/films/{number}.png",
        )
        items.append(item)
    about = About(
        kind="generated",
        evidence="phantom",
        generator="fake",
        model="m" * 16,
        trained_on="phantoms",
        sources=(Source(role="radiographs", title="nothing"),),
        shape=(SIDE,) * 3,
        spacing_mm=(20.0,) * 3,
    )
    names = {item.id: item.path for item in items}
    return Order(items=items, set_aside=(), about=about, names=names)
