"""Planted leaks are found whatever was done to hide them; strangers raise no alarm."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from corpora import ABOUT
from PIL import Image

from ray_jobs.cli import app
from ray_jobs.console import guarded
from synth_ct.cohort.gather import ingest
from synth_ct.corpus.audit import Findings, audit
from synth_ct.corpus.finish import finish
from synth_ct.corpus.layout import make_folders, volume_file
from synth_ct.corpus.receipts import Receipts, fold
from synth_ct.corpus.row import Row, voxel_sha256
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.durable import sha256_of, sha256_of_file
from synth_ct.kit.effort import Effort
from synth_ct.kit.seeds import seed_for
from synth_ct.kit.volume import Volume, resample, save, spacing_mm, to_int16
from synth_ct.phantom import make_phantom
from synth_ct.sources import folder
from synth_ct.xray.project import film_of

SIZE = 48


@pytest.fixture(scope="module")
def phantoms() -> list[Volume]:
    return [
        make_phantom("chest", seed_for(1, "audit", n), SIZE, "A" if n % 2 else "B").ct
        for n in range(32)
    ]


@pytest.fixture(scope="module")
def cohort(phantoms: list[Volume], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first twenty patients."""
    root = tmp_path_factory.mktemp("cohort")
    (root / "in").mkdir()
    for n, volume in enumerate(phantoms[:20]):
        save(volume, root / "in" / f"{n:02}.nii.gz")
    ingest(folder.IMPORTER, root / "in", root / "out", 0, Effort())
    return root / "out"


@pytest.fixture(autouse=True)
def _plain_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "synth_ct.corpus.finish.write_card", lambda at, about: (at / "README.md").write_text("")
    )


def corpus_of(out: Path, volumes: Sequence[Volume], films: Sequence[np.ndarray] = ()) -> Path:
    """A corpus of these volumes; the first come from these films."""
    paths = []
    with publish(out, Record(kind="corpus", recipe={})) as workspace:
        make_folders(workspace)
        receipts = Receipts(workspace)
        for n, volume in enumerate(volumes):
            item, sha256 = (
                sha256_of(f"{out}/{n}".encode())[:16],
                sha256_of(f"{out}/film {n}".encode()),
            )
            if n < len(films):
                path = out.with_name(f"{out.name}-{n}.png")
                pixels = np.rint(255 * films[n]).astype(np.uint8).repeat(6, 0).repeat(6, 1)
                Image.fromarray(pixels).save(path)
                sha256 = sha256_of_file(path)
                paths.append((item, path))
            row = Row(
                id=item, radiograph_sha256=sha256, patient=f"p{item}", finding="", sample=0,
                seed=n, model="m", sampler="s", fingerprint="f", accepted=True, reason="",
                file_sha256=save(volume, workspace / volume_file(item)),
                voxel_sha256=voxel_sha256(volume.array_XYZ), shape=volume.array_XYZ.shape,
                spacing_mm=spacing_mm(volume.affine),
            )  # fmt: skip
            receipts.append([row])
        with (workspace / "sources.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "path"), *paths])
        finish(workspace, fold(workspace), ABOUT)
    return out


def kinds(found: Findings) -> list[str]:
    return sorted(pair.kind for pair in found.pairs)


def test_different_patients_raise_no_alarm(
    phantoms: list[Volume], cohort: Path, tmp_path: Path
) -> None:
    films = [film_of(volume, "frontal") for volume in phantoms[20:30]]
    corpus = corpus_of(tmp_path / "c", phantoms[20:], films)
    assert audit(corpus, [cohort]).pairs == ()


def test_every_planted_leak_is_found(phantoms: list[Volume], cohort: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def cropped(volume: Volume) -> Volume:
        cut = [max(1, round(n * 0.025)) for n in volume.array_XYZ.shape]
        inside = tuple(slice(c, -c) for c in cut)
        return Volume(volume.array_XYZ[inside], volume.affine)

    def noisy(volume: Volume) -> Volume:
        noise = rng.normal(0, 50, volume.array_XYZ.shape)
        return Volume(to_int16(volume.array_XYZ + noise), volume.affine)

    def gridded(volume: Volume) -> Volume:
        x, y, z = spacing_mm(volume.affine)
        other = resample(volume, (x + 2, y + 2, z + 2))
        return Volume(to_int16(other.array_XYZ), other.affine)

    def turned(volume: Volume) -> Volume:
        return Volume(np.ascontiguousarray(volume.array_XYZ[::-1, ::-1]), volume.affine)

    leaks = [
        phantoms[0], gridded(phantoms[1]), cropped(phantoms[2]), turned(phantoms[3]),
        noisy(phantoms[4]), noisy(gridded(turned(cropped(phantoms[5])))),
    ]  # fmt: skip
    corpus = corpus_of(tmp_path / "c", [*leaks, *phantoms[20:30]])
    found = audit(corpus, [cohort])
    assert kinds(found) == [*["near volume"] * 5, "same voxels"]
    assert len({pair.id for pair in found.pairs}) == len({p.other for p in found.pairs}) == 6


def test_a_projected_case_among_the_radiographs_is_found(
    phantoms: list[Volume], cohort: Path, tmp_path: Path
) -> None:
    films = [film_of(phantoms[n], "frontal") for n in (7, 8, 30, 31)]
    films[1] = films[1][:, ::-1]
    corpus = corpus_of(tmp_path / "c", phantoms[20:30], films)
    found = audit(corpus, [cohort])
    assert kinds(found) == ["near DRR", "near DRR"]
    assert len({pair.other for pair in found.pairs}) == 2
    (tmp_path / "c-0.png").unlink()
    moved = audit(corpus, [cohort])
    assert len(moved.pairs) == 1
    assert any("not where sources.csv says" in note for note in moved.notes)


def test_corpora_are_compared_by_their_sums_even_where_they_are_too_small_for_likeness(
    phantoms: list[Volume], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = film_of(phantoms[0], "frontal")
    a = corpus_of(tmp_path / "a", [phantoms[0], phantoms[1]], [film])
    b = corpus_of(tmp_path / "b", [phantoms[2], phantoms[1]], [film])
    arguments = ["corpus", "audit", str(a), "--against", str(b), "--json"]
    assert guarded(lambda given: app(args=given, standalone_mode=False), arguments) == 1
    answer = json.loads(capsys.readouterr().out)
    assert not answer["ok"]
    assert {pair["kind"] for pair in answer["pairs"]} == {"same radiograph", "same voxels"}
    assert any("too few to compare" in note for note in answer["notes"])
    with pytest.raises(ValueError, match="neither a finished cohort nor a corpus"):
        audit(a, [tmp_path])
