"""What each objective learns in minutes of one core: does its loss fall, does the probe rise?

    python benchmarks/pretrain_curves.py CORPUS WORK [--only unet/mae ...]
        [--write docs/results/pretrain_curves.md]

CORPUS is the corpus `real` of a run, as `synth-ct run small_cpu --until corpus` makes it. Each
training is a finished folder below WORK: run again to continue, or to write the page alone.
"""

import argparse
import json
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from tables import put_table

from pretrain.backbones import BackboneSizes, SwinSizes, UNetSizes
from pretrain.objectives import ObjectiveRecipe
from pretrain.objectives.genesis import GenesisRecipe
from pretrain.objectives.mae import MaeRecipe
from pretrain.objectives.swin3 import Swin3Recipe
from pretrain.objectives.volume_fusion import VolumeFusionRecipe
from pretrain.stage import Network, PretrainRecipe, pretrain_stage
from synth_ct.corpus import Corpus
from synth_ct.kit.artifact import Record, is_done, publish
from synth_ct.kit.effort import Effort
from synth_ct.kit.loop import Training
from synth_ct.kit.progress import progress
from synth_ct.kit.schedule import Rate

SEED, PROBE_CROPS = 0, 256
PARTS = 20
"""A loss is told at its beginning and its end, as means over a part."""
UNET = UNetSizes(width=4, levels=4, norm="instance")
SWIN = SwinSizes(feature_size=12, depths=(1, 1, 1, 1), heads=(1, 2, 4, 8), window=4)
DIAGNOSTICS = ("masked_over_mean", "rotation_accuracy", "contrastive_over_log_n", "level_accuracy")


def network(backbone: BackboneSizes, objective: ObjectiveRecipe, steps: int, batch: int) -> Network:
    """Crops are as large as the probe's, or the least that a Swin UNETR reads."""
    small = isinstance(backbone, UNetSizes)
    rate = Rate(shape="cosine", warmup_steps=min(20, steps // 10))
    return Network(
        backbone=backbone,
        objective=objective,
        crop=(32, 32, 32) if small else (32, 32, 64),
        rate=2e-3 if small else 5e-4,
        probe_crops=PROBE_CROPS,
        training=Training(
            seed=SEED,
            steps=steps,
            global_batch=batch,
            micro_batch=batch,
            rate=rate,
            clip_norm=1.0,
            average_decay=0.0,
        ),
    )


NETWORKS = {
    "unet/mae": network(UNET, MaeRecipe(block=8), 300, 4),
    "unet/genesis": network(UNET, GenesisRecipe(), 300, 4),
    "unet/volume_fusion": network(UNET, VolumeFusionRecipe(), 300, 4),
    "unet/swin3": network(UNET, Swin3Recipe(embedding=128), 200, 8),
    "swin/mae": network(SWIN, MaeRecipe(block=8, decoder="head"), 200, 8),
    "swin/swin3": network(SWIN, Swin3Recipe(embedding=128), 100, 8),
}


class Found(NamedTuple):
    """What a training leaves."""

    name: str
    curve: list[dict[str, float]]
    probe: dict[str, dict[str, float]]


def trained(name: str, corpus: Path, work: Path) -> Found:
    """Train it, unless that was done."""
    known = Corpus.open(corpus)
    x, y, z = known.about.spacing_mm
    recipe = PretrainRecipe(
        network=NETWORKS[name],
        arm="real",
        evidence=known.about.evidence,
        spacing_mm=(x, y, z),
    )
    folder = work / name.replace("/", "-").replace(" ", "-")
    inputs = {"corpus/real": known.record.fingerprint}
    record = Record(kind="encoder", recipe=recipe.model_dump(mode="json"), inputs=inputs)
    if not is_done(folder, record):
        steps = recipe.network.training.steps
        with publish(folder, record) as workspace, progress(name, steps) as tick:
            pretrain_stage(recipe, workspace, {"corpus/real": corpus}, Effort(begin=lambda _: tick))
    rows = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    curve = [{name.rpartition("/")[2]: value for name, value in row.items()} for row in rows]
    return Found(name, curve, json.loads((folder / "probe.json").read_text()))


# ---- the page ----------------------------------------------------------------------------------


def values(found: Found, name: str) -> np.ndarray:
    """One column of a curve."""
    return np.array([row[name] for row in found.curve])


def ends(found: Found, name: str) -> tuple[float, float]:
    """Means over the first and the last part."""
    all_T = values(found, name)
    part = max(1, len(all_T) // PARTS)
    return float(all_T[:part].mean()), float(all_T[-part:].mean())


def table(results: Sequence[Found]) -> list[str]:
    """A row a training; a star where the probe's interval is above no gain."""
    rows = [
        "| network, objective | steps | loss, first to last | told apart by | probe R², untrained |"
        " trained | gain [95 %] |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in results:
        first, last = ends(one, "total")
        told = [
            f"{name} {ends(one, name)[0]:.2f} to {ends(one, name)[1]:.2f}"
            for name in DIAGNOSTICS
            if name in one.curve[0]
        ]
        before, after, gain = (one.probe[when] for when in ("untrained", "trained", "gain"))
        star = " *" if gain["low"] > 0 else ""
        rows.append(
            f"| {one.name} | {len(one.curve)} | {first:.3f} to {last:.3f} | {'; '.join(told)} | "
            f"{before['r2']:.3f} | {after['r2']:.3f} | "
            f"{gain['r2']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]{star} |"
        )
    return rows


def picture(results: Sequence[Found], path: Path) -> None:
    """Losses relative to where they began, and the probe before and after."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for one in results:
        total_T = values(one, "total")
        wide = max(1, len(total_T) // PARTS)
        smooth_T = np.convolve(total_T, np.ones(wide) / wide, "valid")
        steps_T = np.linspace(wide / len(total_T), 1, len(smooth_T))
        left.plot(steps_T, smooth_T / ends(one, "total")[0], label=one.name)
    left.set(xlabel="share of the steps", ylabel="loss, relative to its first 5 %", ylim=(0, 1.1))
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
    for row, one in enumerate(results):
        for when, colour, shift in (("untrained", "0.6", 0.12), ("trained", "tab:blue", -0.12)):
            asked: dict[str, Any] = one.probe[when]
            bars = [[asked["r2"] - asked["low"]], [asked["high"] - asked["r2"]]]
            label = when if row == 0 else None
            right.errorbar(
                [asked["r2"]], [row + shift], xerr=bars, fmt="o", color=colour, label=label
            )
    right.set_yticks(range(len(results)), [one.name for one in results])
    right.invert_yaxis()
    right.set(xlabel="probe: R² of where a crop lies, patients held out")
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Each in turn; the table is printed, and written where asked."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="*", choices=[*NETWORKS], default=[*NETWORKS])
    parser.add_argument("--write", type=Path, help="the page whose table to replace")
    asked = parser.parse_args()
    results = []
    for name in asked.only:
        results.append(trained(name, asked.corpus, asked.work))
        print("\n".join(table(results)), flush=True)
    print(f"{date.today()}, {os.cpu_count()} cores, one used, no GPU, seed {SEED}")
    if asked.write:
        picture(results, asked.write.with_suffix(".png"))
        put_table(asked.write, table(results))


if __name__ == "__main__":
    main()
