"""DRR of a 128^3 CT at 2.5 mm to 128x128: ours against DiffDRR, in one interleaved run.

    .venv/bin/python benchmarks/drr.py [--rounds 10] [--write docs/results/drr.md]

DiffDRR gets its own environment (build/venvs/diffdrr, made on the first run: about 6 GB) and its
own process; both render the same volume in the same pose on one thread, in turns.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from synth_ct.kit.axes import Affine, FilmArray, HuArray
from synth_ct.kit.volume import centred_affine
from synth_ct.xray.geometry import Geometry, centre_of, rays
from synth_ct.xray.project import attenuation, march, projector

ROOT = Path(__file__).parents[1]
PEER = ROOT / "build" / "venvs" / "diffdrr"
PACKAGES = ("diffdrr==0.6.1", "torch==2.11.0", "torchvision==0.26.0")
SHAPE, SPACING_MM, SEED = (128, 128, 128), (2.5, 2.5, 2.5), 7
SIDDON, TRILINEAR, REFERENCE = "siddon", "trilinear 500", "trilinear 2000"


@dataclass(frozen=True)
class Row:
    """One method: its times over the rounds and its film."""

    name: str
    ms: tuple[float, ...]
    film_UV: FilmArray


# ---- the volume --------------------------------------------------------------------------------


def thorax() -> HuArray:
    """A body with fat, lungs, heart and spine, and the noise of a CT: sigma 14 HU, correlated."""
    rng = np.random.default_rng(SEED)
    x, y, z = np.meshgrid(*(np.linspace(-160, 160, n) for n in SHAPE), indexing="ij")
    hu = np.full(SHAPE, -1000.0)
    hu[(x / 150) ** 2 + (y / 100) ** 2 < 1] = -90
    hu[(x / 140) ** 2 + (y / 90) ** 2 < 1] = 40
    for side in (-1, 1):
        hu[((x - side * 68) / 55) ** 2 + (y / 70) ** 2 + ((z - 20) / 110) ** 2 < 1] = -830
    hu[((x + 35) / 60) ** 2 + ((y - 20) / 45) ** 2 + ((z + 20) / 60) ** 2 < 1] = 45
    hu[(x / 17) ** 2 + ((y + 62) / 17) ** 2 < 1] = 350
    noise = ndimage.gaussian_filter(rng.normal(size=SHAPE), 0.7)
    noisy: HuArray = (hu + 14 * noise / noise.std()).astype(np.float32)
    return noisy


# ---- the two sides -----------------------------------------------------------------------------


def peer_python() -> Path:
    """DiffDRR's interpreter; its environment is made where it is missing."""
    python = PEER / "bin" / "python"
    ready = PEER / "ready"
    if not ready.exists():
        venv.create(PEER, with_pip=True, clear=True, symlinks=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        ready.touch()
    return python


class Peer:
    """The process that renders with DiffDRR on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [peer_python(), Path(__file__).with_name("drr_peer.py"), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        self.torch = self._line().removeprefix("ready ")

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("DiffDRR's process ended; its error is printed above")
        return line.strip()

    def ms(self, order: str) -> float:
        """Have it render once."""
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        return float(self._line())

    def film(self, order: str) -> FilmArray:
        """What it rendered first."""
        film: FilmArray = np.load(self.folder / f"{order.replace(' ', '_')}.npy")
        return film


def ours(geometry: Geometry, affine: Affine) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Both of our projectors for the pose."""
    world = rays(geometry, centre_of(SHAPE, affine))
    return {
        "separable": projector(geometry, SHAPE, affine),
        "march": march(world, SHAPE, affine, torch.float32, "cpu"),
    }


# ---- the race ----------------------------------------------------------------------------------


def race(rounds: int) -> tuple[list[Row], str]:
    """Alternate all methods; the first, unmeasured round warms up."""
    geometry, affine = Geometry(beam="AP"), centred_affine(SHAPE, SPACING_MM)
    mu_BCXYZ = attenuation(torch.from_numpy(thorax()))[None, None]
    projectors = ours(geometry, affine)
    times: dict[str, list[float]] = {name: [] for name in (*projectors, SIDDON, TRILINEAR)}
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        folder = Path(name)
        hand_over(folder, geometry, mu_BCXYZ, affine)
        peer = Peer(folder)
        reference_ms = peer.ms(REFERENCE)
        for turn in range(rounds + 1):
            now = {name: timed(project, mu_BCXYZ) for name, project in projectors.items()}
            now |= {order: peer.ms(order) for order in (SIDDON, TRILINEAR)}
            print(f"round {turn}:", *(f"{key} {ms:.1f} ms" for key, ms in now.items()), sep="  ")
            if turn:
                for key, ms in now.items():
                    times[key].append(ms)
        films = {name: p(mu_BCXYZ)[0, 0].numpy() for name, p in projectors.items()}
        films |= {order: peer.film(order) for order in (SIDDON, TRILINEAR, REFERENCE)}
        peer.process.communicate()
    rows = [Row(key, tuple(ms), films[key]) for key, ms in times.items()]
    return [*rows, Row(REFERENCE, (reference_ms,), films[REFERENCE])], peer.torch


def hand_over(folder: Path, geometry: Geometry, mu_BCXYZ: torch.Tensor, affine: Affine) -> None:
    """Write down what the peer shall render."""
    np.savez(folder / "volume.npz", mu_XYZ=mu_BCXYZ[0, 0].numpy(), affine=affine)
    wanted = ("source_to_isocentre_mm", "source_to_detector_mm", "pitch_mm")
    told: dict[str, float] = {key: getattr(geometry, key) for key in wanted}
    told["pixels"] = geometry.pixels[0]
    (folder / "geometry.json").write_text(json.dumps(told))


def timed(project: Callable[[torch.Tensor], torch.Tensor], mu_BCXYZ: torch.Tensor) -> float:
    """Milliseconds of processor time of one call, whatever else the machine does meanwhile."""
    begun = time.process_time()
    project(mu_BCXYZ)
    return 1e3 * (time.process_time() - begun)


# ---- the report --------------------------------------------------------------------------------


def relative_l2(film_UV: FilmArray, reference_UV: FilmArray) -> float:
    """|a - b| / |b|."""
    return float(np.linalg.norm(film_UV - reference_UV) / np.linalg.norm(reference_UV))


def report(rows: list[Row], versions: str) -> str:
    """The table, the goals, and how to make them again."""
    by_name = {row.name: row for row in rows}
    unit = float(np.median(by_name["separable"].ms))
    speed = float(np.median(by_name[SIDDON].ms)) / unit
    mine = by_name["separable"].film_UV
    to_siddon, to_reference = (relative_l2(mine, by_name[n].film_UV) for n in (SIDDON, REFERENCE))
    return TEMPLATE.format(
        rounds=len(by_name[SIDDON].ms),
        table="\n".join(table_row(row, unit, by_name) for row in rows),
        speed=f"{speed:.0f} times",
        to_siddon=f"{to_siddon:.1e}",
        to_reference=f"{to_reference:.1e}",
        versions=versions,
        today=date.today(),
        cores=os.cpu_count(),
        seed=SEED,
    )


def table_row(row: Row, unit: float, by_name: dict[str, Row]) -> str:
    """Times, and distances to both references; `unit` is the time of our projector."""
    median = float(np.median(row.ms))
    whose = "synth-ct" if row.name in ("separable", "march") else "DiffDRR"
    errors = [relative_l2(row.film_UV, by_name[to].film_UV) for to in (SIDDON, REFERENCE)]
    distances = " | ".join("-" if error == 0 else f"{error:.1e}" for error in errors)
    times = f"{min(row.ms):.1f} | {median:.1f} | {median / unit:.1f}"
    return f"| {whose} {row.name} | {times} | {distances} |"


TEMPLATE = """# DRR: speed and agreement with DiffDRR

One frontal (AP) radiograph, 128x128 pixels of 3 mm, of a 128^3 CT at 2.5 mm; source to isocentre
850 mm, to detector 1020 mm. Processor time of one thread; {rounds} measured rounds after one to
warm up, in each of which every renderer renders once, so that all meet the same moments of the
machine. DiffDRR uses its own detector and pose code: that the films agree also checks the geometry.

| renderer | ms, min | ms, median | times the first | relative L2 to Siddon | to trilinear 2000 |
|---|---|---|---|---|---|
{table}

`separable` is what frontal and lateral films use, `march` serves any other pose. The constants
of a projector are built before, once per cohort. Siddon looks up the nearest voxel, the others
interpolate: hence their distance. `trilinear 500` is DiffDRR's default number of samples;
`trilinear 2000` ran once.

| goal | found |
|---|---|
| at least 50 times as fast as Siddon (medians) | {speed} |
| relative L2 to Siddon at most 1e-2 | {to_siddon} |
| relative L2 to trilinear 2000 at most 5e-4 | {to_reference} |

Recipe: `.venv/bin/python benchmarks/drr.py --write docs/results/drr.md`, {today}, a machine of
{cores} cores, CPU only; volume seed {seed}. {versions}.
"""


def main() -> None:
    """Race, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows, peer_torch = race(asked.rounds)
    versions = f"torch {torch.__version__}; {PACKAGES[0]} on torch {peer_torch}"
    text = report(rows, versions)
    print(text)
    if asked.write:
        asked.write.write_text(text)


if __name__ == "__main__":
    main()
