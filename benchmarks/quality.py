"""What the quality gate accepts and what it finds: the tables of docs/results/quality.md.

    .venv/bin/python benchmarks/quality.py [--real ../shared/data] [--write docs/results/quality.md]

Phantoms are the training volumes, other phantoms are judged: as they are, and spoilt in every way.
The real CT are judged by the same reference.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage
from tables import put_table

from synth_ct.kit.axes import FilmArray, HuArray
from synth_ct.kit.volume import Volume
from synth_ct.pairs.arrays import working_affine
from synth_ct.pairs.make import make_pair
from synth_ct.phantom import make_phantom
from synth_ct.quality import QualityReference, Verdict, judge, reference_of

SIZE, TRAINED, JUDGED = 64, range(40), range(1000, 1030)
FIRST_B, FAMILY_B = 2000, 10
SPEED_SIZES = (32, 64, 128)

Spoil = Callable[[HuArray], HuArray]


class Case(NamedTuple):
    """A volume and its film."""

    hu_XYZ: HuArray
    film_UV: FilmArray


def phantom(seed: int, *, family: str = "A", opacities: bool = False) -> Case:
    """A phantom as a pair."""
    ct = make_phantom("chest", seed, SIZE, "B" if family == "B" else "A", opacities).ct
    made = make_pair(ct, SIZE)
    return Case(made.hu_XYZ, made.film_UV)


def real_cases(folder: Path) -> dict[str, Case]:
    """All real CT at hand as pairs."""
    cases = {}
    for path in sorted((folder / "ct").glob("*.nii.gz")):
        image = nib.nifti1.load(path)
        hu = np.asarray(image.dataobj).astype(np.int16)
        made = make_pair(Volume(hu, image.affine.astype(np.float64)), SIZE)
        cases[path.name.removesuffix(".nii.gz")] = Case(made.hu_XYZ, made.film_UV)
    return cases


# ---- ways to spoil a volume --------------------------------------------------------------------


def lungs_as(hu_XYZ: HuArray, value: int, part: slice = slice(None)) -> HuArray:
    """The air inside filled: everything under -400 HU between the body's front and back."""
    solid = hu_XYZ > -400
    front = np.maximum.accumulate(solid, 1)
    back = np.maximum.accumulate(solid[:, ::-1], 1)[:, ::-1]
    inner = front & back & ~solid
    filled = hu_XYZ.copy()
    filled[part][inner[part]] = value
    return filled


def with_nan(hu_XYZ: HuArray) -> HuArray:
    """A corner of NaN."""
    spoilt = hu_XYZ.astype(np.float32)
    spoilt[:4, :4, :4] = np.nan
    return spoilt


def blurred(hu_XYZ: HuArray, voxels: float) -> HuArray:
    """Gaussian blur: what a poor generator makes."""
    soft: HuArray = ndimage.gaussian_filter(hu_XYZ.astype(np.float32), voxels, mode="nearest")
    return soft


def noise(hu_XYZ: HuArray) -> HuArray:
    """Uniform over the window."""
    return np.random.default_rng(0).uniform(-1000, 1500, hu_XYZ.shape).astype(np.float32)


def shuffled(hu_XYZ: HuArray) -> HuArray:
    """The patient's own voxels in any order."""
    return np.random.default_rng(0).permuted(hu_XYZ.ravel()).reshape(hu_XYZ.shape)


def empty_body(hu_XYZ: HuArray) -> HuArray:
    """A body of water without anything in it."""
    return np.where(lungs_as(hu_XYZ, 0) > -400, 0, -1000).astype(np.int16)


HALF = SIZE // 2
SPOILT: Mapping[str, Spoil] = {
    "left and right exchanged": lambda hu: hu[::-1],
    "front and back exchanged": lambda hu: hu[:, ::-1],
    "upside down": lambda hu: hu[:, :, ::-1],
    "turned by 180 degrees about the long axis": lambda hu: hu[::-1, ::-1],
    "uniform noise": noise,
    "own voxels in random order": shuffled,
    "air everywhere": lambda hu: np.full_like(hu, -1000),
    "water everywhere": np.zeros_like,
    "body outline filled with water": empty_body,
    "lungs filled with water": lambda hu: lungs_as(hu, 0),
    "right lung filled with water": lambda hu: lungs_as(hu, 0, slice(HALF, None)),
    "HU + 300": lambda hu: hu + np.int16(300),
    "HU + 100": lambda hu: hu + np.int16(100),
    "HU - 300": lambda hu: hu - np.int16(300),
    "left in [-1, 1]": lambda hu: hu / 1250,
    "bone cut off at 150 HU": lambda hu: np.minimum(hu, 150),
    "a block of NaN": with_nan,
    "blurred, sigma 3 mm": lambda hu: blurred(hu, 0.6),
    "blurred, sigma 5 mm": lambda hu: blurred(hu, 1),
    "blurred, sigma 10 mm": lambda hu: blurred(hu, 2),
    "blurred, sigma 20 mm": lambda hu: blurred(hu, 4),
}


# ---- judging -----------------------------------------------------------------------------------


def verdict(case: Case, film_UV: FilmArray, reference: QualityReference) -> Verdict:
    """Judged against the training films as strangers."""
    return judge(Volume(case.hu_XYZ, working_affine(SIZE)), film_UV, [], reference)


def row(name: str, verdicts: list[Verdict]) -> str:
    """How many were rejected, and for what."""
    reasons = Counter(one.reason for one in verdicts if not one.accepted)
    said = ", ".join(f"{code} {n}" for code, n in reasons.most_common()) or "-"
    return f"| {name} | {len(verdicts)} | {sum(reasons.values())} | {said} |"


def rows(trained: list[Case], judged: list[Case], reference: QualityReference) -> Iterator[str]:
    """One line for each kind of volume."""
    own = [verdict(case, case.film_UV, reference) for case in judged]
    yield row("**true: other phantoms**", own)
    answers = [verdict(case, case.film_UV, reference) for case in trained]
    yield row("**true: training volumes, from their own films**", answers)
    sick = [phantom(seed, opacities=True) for seed in JUDGED[:FAMILY_B]]
    yield row("**true: with opacities**", [verdict(c, c.film_UV, reference) for c in sick])
    b = [phantom(FIRST_B + n, family="B") for n in range(FAMILY_B)]
    yield row("**true: family B**", [verdict(c, c.film_UV, reference) for c in b])
    for name, spoil in SPOILT.items():
        spoilt = [Case(spoil(case.hu_XYZ), case.film_UV) for case in judged]
        yield row(name, [verdict(case, case.film_UV, reference) for case in spoilt])
    next_film = [case.film_UV for case in judged[1:] + judged[:1]]
    strangers = zip(judged, next_film, strict=True)
    yield row("another patient's volume", [verdict(c, f, reference) for c, f in strangers])
    yield row("a training volume", copies(trained, judged, reference, 0))
    yield row("a training volume, made noisy (30 HU)", copies(trained, judged, reference, 30))
    yield row("the mean training volume", means(trained, judged, reference))


def copies(
    trained: list[Case], judged: list[Case], reference: QualityReference, noise_hu: float
) -> list[Verdict]:
    """The training volume whose projection suits each film best: the likeliest to pass."""
    found = []
    random = np.random.default_rng(0)
    for case in judged:
        alike = [np.corrcoef(case.film_UV.ravel(), t.film_UV.ravel())[0, 1] for t in trained]
        copy = trained[int(np.argmax(alike))].hu_XYZ
        copy = copy + random.normal(0, noise_hu, copy.shape) if noise_hu else copy
        found.append(verdict(Case(copy, case.film_UV), case.film_UV, reference))
    return found


def means(trained: list[Case], judged: list[Case], reference: QualityReference) -> list[Verdict]:
    """What a generator makes that ignores its film."""
    mean = np.stack([case.hu_XYZ for case in trained]).mean(0, dtype=np.float32)
    return [verdict(Case(mean, case.film_UV), case.film_UV, reference) for case in judged]


# ---- tables ------------------------------------------------------------------------------------


def limits(reference: QualityReference) -> list[str]:
    """What the training volumes allow."""
    table = ["| figure | least | most |", "|---|---|---|"]
    for name, (low, high) in reference.ranges.items():
        digits = 2 if name.endswith("share") else 0
        table.append(f"| `{name}` | {low:.{digits}f} | {high:.{digits}f} |")
    names = ("towards_right", "towards_front", "towards_head")
    for name, least in zip(names, reference.least_directions, strict=True):
        table.append(f"| `{name}` | {least:.2f} | 1 |")
    table.append(f"| `reprojection_gain` | {reference.least_gain:.2f} | 1 |")
    return [*table, f"| `nearest_hu` | {reference.least_distance_hu:.0f} | - |"]


def of_real(cases: Mapping[str, Case], reference: QualityReference) -> list[str]:
    """Each real CT, and its mirror image."""
    shown = ("body_share", "lung_share", "lung_hu", "towards_right", "reprojection_gain")
    table = ["| real CT | verdict | its mirror image | " + " | ".join(shown) + " |"]
    table.append("|---" * (3 + len(shown)) + "|")
    for name, case in cases.items():
        own = verdict(case, case.film_UV, reference)
        flipped = verdict(Case(case.hu_XYZ[::-1], case.film_UV), case.film_UV, reference)
        found = [(own.figures[figure], figure.endswith("_hu")) for figure in shown]
        figures = " | ".join(f"{value or 0:.{0 if is_hu else 2}f}" for value, is_hu in found)
        table.append(f"| {name} | {said(own)} | {said(flipped)} | {figures} |")
    return table


def said(one: Verdict) -> str:
    """A verdict in a cell."""
    return "accepted" if one.accepted else f"`{one.reason}`"


def speed(case: Case, reference: QualityReference) -> list[str]:
    """Milliseconds a verdict, on one volume enlarged or thinned: its content hardly matters."""
    table = ["| voxels a side | ms, min | ms, median |", "|---|---|---|"]
    for size in SPEED_SIZES:
        where = np.arange(size) * SIZE // size
        volume = Volume(case.hu_XYZ[np.ix_(where, where, where)], working_affine(size))
        held = replace(reference, size=size)
        times = []
        for _ in range(10):
            start = time.process_time()
            judge(volume, case.film_UV, [], held)
            times.append(1000 * (time.process_time() - start))
        table.append(f"| {size} | {min(times):.0f} | {float(np.median(times)):.0f} |")
    return table


def main() -> None:
    """Print the tables, and put them in their page where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--real", type=Path, help="the folder of real images")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    asked = parser.parse_args()
    trained, judged = ([phantom(seed) for seed in seeds] for seeds in (TRAINED, JUDGED))
    reference = reference_of([c.hu_XYZ for c in trained], [c.film_UV for c in trained])
    found = ["| volumes | judged | rejected | reasons |", "|---|---|---|---|"]
    tables = [[*found, *rows(trained, judged, reference)], limits(reference)]
    if asked.real:
        tables.append(of_real(real_cases(asked.real), reference))
    tables.append(speed(judged[0], reference))
    for table in tables:
        print("\n".join(table), end="\n\n")
        if asked.write:
            put_table(asked.write, table)


if __name__ == "__main__":
    main()
