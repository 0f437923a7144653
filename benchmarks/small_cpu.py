"""What `small_cpu` learned, on patients it has not seen.

    synth-ct run small_cpu --until generator --root ROOT
    synth-ct evaluate ROOT --table 1 --samples 8 --cases 60
    synth-ct evaluate ROOT --figure 3 --samples 8 --cases 6
    python benchmarks/small_cpu.py ROOT --write docs/results/small_cpu.md

Reads the answers below ROOT/evaluation and the curves beside the weights; computes nothing.
"""

import argparse
import json
import os
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

RECIPE = "small_cpu"
SAMPLES = 8
NEWLINE = "\n"
CURVES = {
    "autoencoder": "generator/reconstruction",
    "prior": "prior/error",
    "denoiser": "denoiser/total",
}
WHAT = {
    "autoencoder": "mean |error|",
    "prior": "squared error (latent)",
    "denoiser": "squared error (velocity)",
}


def main() -> None:
    """Write the page and its two pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("root", type=Path)
    parser.add_argument("--write", type=Path, required=True)
    given = parser.parse_args()
    answer = json.loads((given.root / "evaluation/table1.json").read_text())
    table = (given.root / "evaluation/table1.md").read_text()
    curve = given.write.with_name(f"{given.write.stem}_curve.png")
    draw_curves(given.root, curve)
    sheet = given.write.with_name(f"{given.write.stem}_figure3.png")
    shutil.copyfile(given.root / "evaluation/figure3.png", sheet)
    given.write.write_text(page(answer, table, given.root, curve.name, sheet.name))


def page(answer: dict[str, Any], table: str, root: Path, curve: str, sheet: str) -> str:
    """The claims first, then the table they are read from."""
    mean, other = f"xctdiff_mean{SAMPLES}", f"xctdiff_other_film_mean{SAMPLES}"
    claims = [
        claim(answer, mean, "mean_volume"),
        claim(answer, mean, other),
        claim(answer, "xctdiff", "mean_volume"),
        claim(answer, "xctdiff", "xctdiff_other_film"),
        claim(answer, "prior_only", "mean_volume"),
    ]
    return f"""# Does the generator use its radiograph?

`{RECIPE}` on phantoms: trained on {trained_on(root)} patients of family A, asked about
{answer["rows"][0]["n"]} others; 64 voxels a side. Evidence: phantom.
{date.today().isoformat()}, {os.cpu_count()} cores, no GPU, seed 0.
Recipe: `synth-ct show {RECIPE}`; commands: the first lines of `benchmarks/small_cpu.py`.

Paired differences over patients (mean [95 % interval], p by sign flips, Holm over all pairs):

| system | against | PSNR (dB) | p | SSIM | p |
|---|---|---|---|---|---|
{NEWLINE.join(claims)}

`{mean}` is the mean of {SAMPLES} samples of the right radiograph, `{other}` of somebody else's. A
single sample carries the conditional variance twice, and stands beside them.

{table.strip()}

![Losses]({curve})

![The truth and every system]({sheet})
"""


def claim(answer: dict[str, Any], system: str, against: str) -> str:
    """One row: who minus whom."""
    pairs = {(p["system"], p["against"]): p for p in answer["paired"]}
    sign, pair = 1, pairs.get((system, against))
    if pair is None:
        sign, pair = -1, pairs[against, system]
    cells = []
    for metric, digits in (("psnr", 2), ("ssim", 4)):
        gap = pair[metric]
        ends = sorted((sign * gap["lo"], sign * gap["hi"]))
        cells.append(
            f"{sign * gap['mean']:+.{digits}f} [{ends[0]:+.{digits}f}, {ends[1]:+.{digits}f}]"
        )
        cells.append(f"{gap['p_holm']:.2g}")
    return f"| {system} | {against} | {' | '.join(cells)} |"


def trained_on(root: Path) -> int:
    """How many patients."""
    pairs = json.loads((root / "cohorts/pairs/pairs.json").read_text())["pairs"]
    return len({row["patient"] for row in pairs if row["split"] == "train"})


def draw_curves(root: Path, file: Path) -> None:
    """Each training's loss over its steps."""
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    for axes, (part, name) in zip(figure.subplots(1, len(CURVES)), CURVES.items(), strict=True):
        lines = (root / part / RECIPE / "curve.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        steps, losses = [row["step"] for row in rows], np.array([row[name] for row in rows])
        smooth = np.convolve(losses, np.ones(25) / 25, mode="valid")
        axes.plot(steps, losses, lw=0.4, alpha=0.4)
        axes.plot(steps[12 : 12 + len(smooth)], smooth, lw=1.2)
        axes.set(yscale="log", title=part, xlabel="step", ylabel=WHAT[part])
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    main()
