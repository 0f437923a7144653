"""Radiographs made to look like DRRs: what `none`, `histogram` and `cyclegan` do to real films.

    .venv/bin/python benchmarks/style.py ../shared/data/chest_xray_256 [--work build/style]

Trains a small CycleGAN on one thread (it goes on where it was stopped), measures all three on
films of patients it has not seen, and writes docs/results/style.md and docs/results/style.png.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tables import put_table

from synth_ct.evaluation.style_distance import (
    lung_density,
    opacity_contrast,
    structure_kept,
    style_distance,
)
from synth_ct.kit.loop import Training
from synth_ct.kit.place import Place
from synth_ct.kit.schedule import Rate
from synth_ct.kit.seeds import numpy_random, seed_for
from synth_ct.learners.style import StyleRecipe, load_style, train_style
from synth_ct.models.style import StyleSizes
from synth_ct.phantom import make_phantom
from synth_ct.sources.chest_xray2017 import patient_of
from synth_ct.xray.frame import frame
from synth_ct.xray.geometry import Geometry
from synth_ct.xray.pose import read_radiograph
from synth_ct.xray.project import drr

PAGE = Path(__file__).parents[1] / "docs" / "results" / "style.md"
SEED, PIXELS = 0, 64
HELD_OUT, SICK = 100, 150
"""Patients, one film each."""
DRRS, HELD_OUT_DRRS = 100, 40
RECIPE = StyleRecipe(
    sizes=StyleSizes(width=16, blocks=4, judge_width=24, judge_layers=2),
    learning_rate=1e-3,
    training=Training(
        seed=SEED,
        steps=1500,
        global_batch=1,
        micro_batch=1,
        rate=Rate(shape="linear", hold_steps=750),
        average_decay=0.99,
    ),
)
SETS = ("learnt", "held out", "sick", "learnt DRRs", "DRRs")
KINDS = ("none", "histogram", "cyclegan")
RESAMPLES = 2000
COLUMNS, TILE, GAP = 10, 128, 2
HEADER = [
    "| style | distance x 1000 (95 %) | edges kept | another's | opacity contrast (95 %) "
    "| its change (95 %) | densities kept |",
    "|---|---|---|---|---|---|---|",
]


@dataclass(frozen=True)
class Films:
    """Framed films NUV, and whose they are."""

    films_NUV: np.ndarray
    patients: list[str]


# ---- films -------------------------------------------------------------------------------------


def gather(folder: Path) -> dict[str, Films]:
    """Normal films to learn from, normal and sick ones held out, DRRs for either purpose."""
    normal = by_patient(folder, "NORMAL")
    held_out, learnt = dict(list(normal.items())[:HELD_OUT]), dict(list(normal.items())[HELD_OUT:])
    sick = dict(list(by_patient(folder, "PNEUMONIA").items())[:SICK])
    return {
        "learnt": read(learnt),
        "held out": read({p: files[:1] for p, files in held_out.items()}),
        "sick": read({p: files[:1] for p, files in sick.items()}),
        "learnt DRRs": phantoms(range(DRRS)),
        "DRRs": phantoms(range(DRRS, DRRS + HELD_OUT_DRRS)),
    }


def by_patient(folder: Path, kind: str) -> dict[str, list[Path]]:
    """The files of each patient of a class, in an order drawn by the seed."""
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob(f"{kind}/*.jpeg")):
        files.setdefault(patient_of(file.stem)[0], []).append(file)
    names = sorted(files)
    order = numpy_random(SEED, f"style/{kind}").permutation(len(names))
    return {names[n]: files[names[n]] for n in order}


def read(files: Mapping[str, list[Path]]) -> Films:
    """Every file framed."""
    paths = [(patient, path) for patient, paths in files.items() for path in paths]
    films = [frame(read_radiograph(path).pixels_UV, PIXELS).film_UV for _, path in paths]
    return Films(np.stack(films), [patient for patient, _ in paths])


def phantoms(numbers: range) -> Films:
    """Framed DRRs of phantom chests without opacities, as the CT cohort has them."""
    films = []
    for number in numbers:
        ct = make_phantom("chest", seed_for(SEED, "style/phantom", number), 64).ct
        films.append(frame(drr(ct, Geometry()), PIXELS).film_UV)
    return Films(np.stack(films), [f"phantom {n}" for n in numbers])


def cached(folder: Path, work: Path) -> dict[str, Films]:
    """The films, read and made once."""
    work.mkdir(parents=True, exist_ok=True)
    files = {name: work / f"{name} {PIXELS}.npz" for name in SETS}
    if not all(file.exists() for file in files.values()):
        for name, films in gather(folder).items():
            np.savez(files[name], films_NUV=films.films_NUV, patients=np.array(films.patients))
    sets = {}
    for name, file in files.items():
        with np.load(file) as found:
            sets[name] = Films(found["films_NUV"], found["patients"].tolist())
    return sets


# ---- training and measuring --------------------------------------------------------------------


def trained(kind: str, films: Mapping[str, Films], work: Path) -> torch.nn.Module:
    """Train a style, or finish training it."""
    recipe = RECIPE.model_copy(update={"kind": kind})
    began = time.monotonic()

    def log(step: int, row: dict[str, float]) -> None:
        if step % 50 == 0:
            losses = " ".join(f"{k.split('/')[-1]} {v:.3f}" for k, v in row.items())
            print(f"{kind} {step} {time.monotonic() - began:.0f} s {losses}", flush=True)

    place = Place(folder=work / kind, device=torch.device("cpu"), log=log, every=100)
    if not (place.folder / "style.safetensors").exists():
        place.folder.mkdir(parents=True, exist_ok=True)
        train_style(recipe, films["learnt"].films_NUV, films["learnt DRRs"].films_NUV, place)
    return load_style(recipe, place.folder, place.device)


def styled(style: torch.nn.Module, films: Films) -> Films:
    """All films of a set in the style."""
    with torch.inference_mode():
        out_B1UV = style(torch.from_numpy(films.films_NUV)[:, None])
    return Films(out_B1UV[:, 0].numpy(), films.patients)


def rows(sets: Mapping[str, dict[str, Films]], drrs: Films, learnt_drrs: Films) -> list[str]:
    """One line a style, and what is left between two sets of DRRs."""
    plain = sets["none"]
    contrasts = {kind: resampled(found) for kind, found in sets.items()}
    lines = []
    for kind, found in sets.items():
        apart = between(found["held out"], drrs)
        before_NUV, after_NUV = plain["held out"].films_NUV, found["held out"].films_NUV
        edges = structure_kept(before_NUV, after_NUV).mean()
        others = structure_kept(np.roll(before_NUV, 1, axis=0), after_NUV).mean()
        contrast, drawn = contrasts[kind]
        change = contrast - contrasts["none"][0]
        changes = interval(drawn - contrasts["none"][1])
        densities = [lung_density(films["sick"].films_NUV) for films in (plain, found)]
        kept = np.corrcoef(densities)[0, 1]
        lines.append(
            f"| {kind} | {apart} | {edges:.2f} | {others:.2f} | {contrast:.2f} ({interval(drawn)}) "
            f"| {change:+.2f} ({changes}) | {kept:.2f} |"
        )
    return [*lines, f"| DRRs, other phantoms | {between(learnt_drrs, drrs)} | - | - | - | - | - |"]


def between(films: Films, drrs: Films) -> str:
    """The distance of two sets."""
    found = style_distance(films.films_NUV, drrs.films_NUV, films.patients, drrs.patients)
    return f"{1000 * found.mean:.0f} ({1000 * found.lo:.0f} to {1000 * found.hi:.0f})"


def resampled(found: Mapping[str, Films]) -> tuple[float, np.ndarray]:
    """The opacity contrast, and that of resampled patients: the same ones for every style."""
    random = numpy_random(SEED, "style/resample")
    sick, normal = (lung_density(found[name].films_NUV) for name in ("sick", "held out"))
    drawn = [
        opacity_contrast(random.choice(sick, len(sick)), random.choice(normal, len(normal)))
        for _ in range(RESAMPLES)
    ]
    return opacity_contrast(sick, normal), np.array(drawn)


def interval(values: np.ndarray) -> str:
    """The middle 95 %."""
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{low:.2f} to {high:.2f}"


# ---- the sheet ---------------------------------------------------------------------------------


def save_sheet(sets: Mapping[str, dict[str, Films]], drrs: Films, path: Path) -> None:
    """Columns: five normal and five sick films. Rows: the three styles, then DRRs."""
    half = COLUMNS // 2
    lines = [
        np.concatenate([found[name].films_NUV[:half] for name in ("held out", "sick")])
        for found in sets.values()
    ]
    step = TILE + GAP
    sheet = np.full(((len(lines) + 1) * step - GAP, COLUMNS * step - GAP), 255, np.uint8)
    for i, line in enumerate([*lines, drrs.films_NUV[:COLUMNS]]):
        for j, film_UV in enumerate(line):
            grey = Image.fromarray(np.rint((film_UV + 1) * 127.5).astype(np.uint8))
            tile = np.asarray(grey.resize((TILE, TILE), Image.Resampling.BICUBIC))
            sheet[i * step : i * step + TILE, j * step : j * step + TILE] = tile
    Image.fromarray(sheet).save(path, optimize=True)


def main() -> None:
    """Films, styles, table, sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="chest_xray_256: real radiographs by class")
    parser.add_argument("--work", type=Path, default=Path("build/style"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    films = cached(given.folder, given.work)
    sets: dict[str, dict[str, Films]] = {}
    for kind in KINDS:
        style = trained(kind, films, given.work)
        sets[kind] = {name: styled(style, films[name]) for name in ("held out", "sick")}
    table = [*HEADER, *rows(sets, films["DRRs"], films["learnt DRRs"])]
    print("\n".join(table))
    save_sheet(sets, films["DRRs"], PAGE.with_suffix(".png"))
    put_table(PAGE, table)


if __name__ == "__main__":
    main()
