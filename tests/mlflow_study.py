"""A small study made by hand: two data sets, two networks, two arms, five folds."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from finetune.results import Fit
from finetune.score import Score
from reports.compare import Cell, Comparison, GapRow, OrganCell
from reports.mlflow_runs import Study, UsedCorpus
from synth_ct.kit.artifact import Record

DATASETS, ARCHS, ARMS = ("bcv", "spleen"), ("swin", "unet"), ("scratch", "synthetic")
ORGANS = {1: "spleen", 2: "right kidney"}
DIGEST = sha256(b"corpus").hexdigest()
GAIN = {"synthetic": 0.05, "real": 0.06, "primitives": 0.01}
PNG = b"\x89PNG not looked at"


Names = tuple[str, ...]


def make_study(
    folder: Path,
    datasets: Names = DATASETS,
    archs: Names = ARCHS,
    arms: Names = ARMS,
    seeds: tuple[int, ...] = (0,),
    steps: int = 20,
) -> Study:
    """All of it, with folders for its encoders and its report."""
    cells = [(d, a, arm) for d in datasets for a in archs for arm in arms]
    (folder / "report").mkdir(parents=True, exist_ok=True)
    (folder / "report" / "gaps.png").write_bytes(PNG)
    encoders = {
        name: make_encoder(folder / name)
        for name in (f"encoder/{a}-{arm}-s{s}" for a in archs for arm in arms for s in seeds)
    }
    fits = [make_fit(c, fold, seed) for c in cells for seed in seeds for fold in range(5)]
    return Study(
        name="tiny",
        comparison=make_comparison(cells, len(seeds)),
        fits=fits,
        recipe='name = "tiny"\n',
        report=folder / "report",
        curves={
            f"fits/{f.dataset}-{f.arch}-{f.arm}-f{f.fold}-s{f.seed}": [
                {"step": step, "total": 1 / (1 + step), "rate": 1e-4} for step in range(steps)
            ]
            for f in fits
        },
        corpora=[
            UsedCorpus(name="corpus/synthetic", digest=DIGEST, volumes=30, evidence="phantom")
        ],
        encoders=encoders,
    )


def make_encoder(folder: Path) -> Path:
    """What is read of one."""
    folder.mkdir(parents=True, exist_ok=True)
    arm = folder.name.split("-")[1]
    inputs = {"corpus/synthetic": DIGEST[:16]} if arm == "synthetic" else {}
    record = Record(kind="encoder", recipe={"arm": arm}, inputs=inputs)
    (folder / "record.json").write_text(record.sealed().text())
    (folder / "adaptation.json").write_text(json.dumps({"arm": arm}))
    return folder


def level(cell: tuple[str, str, str]) -> float:
    """Mean Dice of an arm."""
    dataset, arch, arm = cell
    return 0.6 + 0.1 * (dataset == "spleen") + 0.02 * (arch == "unet") + GAIN.get(arm, 0.0)


def make_fit(cell: tuple[str, str, str], fold: int, seed: int, run: str = "") -> Fit:
    """Two patients with two organs each."""
    dataset, arch, arm = cell
    name = f"{dataset}-{arch}-{arm}-f{fold}-s{seed}"
    scores = [
        Score(
            case=f"c{fold}{patient}", patient=f"p{fold}{patient}", label=label, organ=organ,
            outcome="scored", dice=level(cell) + 0.01 * fold + 0.02 * patient, nsd=0.5,
            reference_ml=100.0, predicted_ml=90.0,
        )
        for patient in range(2)
        for label, organ in ORGANS.items()
    ]  # fmt: skip
    encoder = f"encoder/{arch}-{arm}-s{seed}"
    return Fit(
        dataset=dataset, arch=arch, arm=arm, fold=fold, seed=seed, steps=6,
        fingerprint=sha256(f"{name}{run}".encode()).hexdigest()[:16],
        config={"evidence": "plumbing", "finetuning": {"checkpoint": "last"}},
        inputs={
            f"cohorts/{dataset}": sha256(dataset.encode()).hexdigest()[:16],
            f"cohorts/{dataset}_folds": "0" * 16,
            "fits/protocol": "1" * 16,
            encoder: sha256(encoder.encode()).hexdigest()[:16],
        },
        scores=tuple(scores),
    )  # fmt: skip


def make_comparison(cells: list[tuple[str, str, str]], seeds: int) -> Comparison:
    """Numbers that a test can foretell; no statistics."""
    return Comparison(
        evidence="plumbing",
        gaps=tuple(
            GapRow(
                dataset=d, arch=a, arm=arm, baseline="scratch", headline=True, status="run",
                n_patients=10, seeds=seeds, p=0.01, p_holm=0.04, gap=100 * GAIN.get(arm, 0.0),
                lo=100 * GAIN.get(arm, 0.0) - 3, hi=100 * GAIN.get(arm, 0.0) + 3,
                tost_p=1.0, mde=3.0, p_false_claim=0.01,
            )
            for d, a, arm in cells
            if arm != "scratch"
        ),
        cells=tuple(
            Cell(
                dataset=c[0], arch=c[1], arm=c[2], n_patients=10, seeds=seeds, dice=level(c) + 0.03,
                sd=0.02, lo=0.6, hi=0.8, nsd=0.5, absent=0, false_positives=0,
            )
            for c in cells
        ),
        organs=tuple(
            OrganCell(
                dataset=c[0], arch=c[1], arm=c[2], label=label, organ=organ, n_patients=10,
                dice=level(c) + 0.03, nsd=0.5,
            )
            for c in cells
            for label, organ in ORGANS.items()
        ),
    )  # fmt: skip


def made_anew(study: Study, cell: tuple[str, str, str]) -> Study:
    """The same, with the fits of one arm fitted again."""
    fits = [
        make_fit(cell, f.fold, f.seed, "again") if (f.dataset, f.arch, f.arm) == cell else f
        for f in study.fits
    ]
    return replace(study, fits=fits)
