"""DiffDRR in its own environment: renders when told to, and says how long it took.

Run by drr.py, which writes `volume.npz` and `geometry.json` to the folder given. Then each line on
stdin is one order, `siddon` or `trilinear SAMPLES`, answered by its milliseconds on stdout; the
film of each first order is saved as `<order>.npy`.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffdrr.data import read
from diffdrr.drr import DRR
from torchio import ScalarImage

Renderers = dict[str, DRR]


def renderers(folder: Path) -> tuple[Renderers, dict[str, Any]]:
    """Both of DiffDRR's methods on one volume, and the pose all orders share."""
    geometry = json.loads((folder / "geometry.json").read_text())
    with np.load(folder / "volume.npz") as stored:
        mu_XYZ, affine = torch.from_numpy(stored["mu_XYZ"]), stored["affine"]
    subject = read(ScalarImage(tensor=mu_XYZ[None], affine=affine), orientation="AP")
    made = {
        name: DRR(
            subject,
            sdd=geometry["source_to_detector_mm"],
            height=geometry["pixels"],
            delx=geometry["pitch_mm"],
            renderer=name,
        )
        for name in ("siddon", "trilinear")
    }
    for renderer in made.values():
        renderer.density = mu_XYZ  # `read` has its own idea of attenuation
    source = torch.tensor([[0.0, geometry["source_to_isocentre_mm"], 0.0]])
    pose = {"rotation": torch.zeros(1, 3), "translation": source}
    return made, pose


def answer(order: str, made: Renderers, pose: dict[str, Any], folder: Path) -> float:
    """Render once; the milliseconds it took."""
    name, *samples = order.split()
    options = {"n_points": int(samples[0])} if samples else {}
    begun = time.process_time()
    film = made[name](
        pose["rotation"],
        pose["translation"],
        parameterization="euler_angles",
        convention="ZXY",
        **options,
    )
    taken = 1e3 * (time.process_time() - begun)
    saved = folder / f"{order.replace(' ', '_')}.npy"
    if not saved.exists():
        np.save(saved, film[0, 0].numpy())
    return taken


def main() -> None:
    """Serve orders until stdin closes."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    made, pose = renderers(folder)
    print("ready", torch.__version__, flush=True)
    with torch.no_grad():
        for line in sys.stdin:
            print(answer(line.strip(), made, pose, folder), flush=True)


if __name__ == "__main__":
    main()
