"""Made-up studies for tests of the report: every part of it filled, no effect real."""

import io
import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from PIL import Image

from finetune.results import Fit
from finetune.score import Score
from reports.compare import Cell, Comparison, GapRow, OrganCell
from reports.protocol import Protocol
from reports.study import (
    Aside,
    CorpusShown,
    Cost,
    Curve,
    Provenance,
    QualityFigure,
    ReportInput,
    Sample,
    chosen,
)

ARMS = ("scratch", "real", "synthetic", "primitives")
ORGANS = {
    1: "spleen", 2: "right_kidney", 3: "left_kidney", 4: "gallbladder", 5: "oesophagus",
    6: "liver", 7: "stomach", 8: "aorta", 9: "inferior_vena_cava",
    10: "portal_and_splenic_veins", 11: "pancreas", 12: "right_adrenal_gland",
    13: "left_adrenal_gland",
}  # fmt: skip
PLACES = (("bcv", "swin"), ("bcv", "unet"), ("spleen", "swin"), ("spleen", "unet"))


def protocol(arms: Iterable[str] = ARMS, seeds: Iterable[int] = (0, 1, 2)) -> Protocol:
    return Protocol(arms=tuple(arms), seeds=tuple(seeds))


def gap(
    arm: str = "synthetic", baseline: str = "scratch", *, dataset: str = "spleen",
    arch: str = "unet", at: tuple[float, float, float] = (5.0, 4.0, 6.0), p_holm: float = 0.001,
    tost_p: float = 0.9, mde: float = 1.4, headline: bool = True,
) -> GapRow:  # fmt: skip
    return GapRow(
        dataset=dataset, arch=arch, arm=arm, baseline=baseline, headline=headline, status="run",
        n_patients=30, seeds=3, gap=at[0], lo=at[1], hi=at[2], p=p_holm / 4,
        p_holm=p_holm if headline else None, tost_p=tost_p, mde=mde, p_false_claim=0.04,
    )  # fmt: skip


def not_run(baseline: str, dataset: str = "spleen", arch: str = "unet") -> GapRow:
    return GapRow(dataset=dataset, arch=arch, arm="synthetic", baseline=baseline, headline=True)


def cell(arm: str, dice: float, dataset: str = "spleen", arch: str = "unet") -> Cell:
    return Cell(
        dataset=dataset, arch=arch, arm=arm, n_patients=30, seeds=3, dice=dice, sd=0.06,
        lo=dice - 0.02, hi=dice + 0.02, nsd=dice + 0.05, absent=2, false_positives=1,
    )  # fmt: skip


def fit(arm: str = "scratch", *, dataset: str = "spleen", fold: int = 0) -> Fit:
    def score(case: int, value: float) -> Score:
        return Score(
            case=f"c{case}", patient=f"p{case}", label=1, organ="spleen", outcome="scored",
            dice=value, nsd=value, reference_ml=200.0, predicted_ml=210.0,
        )  # fmt: skip

    return Fit(
        dataset=dataset, arch="unet", arm=arm, fold=fold, seed=0, steps=100,
        fingerprint=f"{fold:016x}", config={"evidence": "phantom", "labels": 1.0},
        inputs={"cohorts/spleen": "a" * 16}, scores=(score(1, 0.5), score(2, 0.75)),
    )  # fmt: skip


def study(*gaps: GapRow, evidence: str = "phantom") -> ReportInput:
    """The least that a page can be made of, about these gaps."""
    return ReportInput(
        run="made_up", date="2026-11-21", protocol=protocol(), fits=(fit(), fit("synthetic")),
        comparison=Comparison(
            evidence=evidence, gaps=gaps, cells=(cell("scratch", 0.9),), organs=()
        ),
        provenance=Provenance(
            recipe='name = "made_up"\n', code="c" * 16, fingerprints={"corpus/real": "b" * 16}
        ),
    )  # fmt: skip


def whole_study(evidence: str = "phantom") -> ReportInput:
    """Four places, four arms, everything there is to show."""
    random = np.random.default_rng(0)
    return replace(
        study(evidence=evidence),
        comparison=Comparison(
            evidence=evidence,
            gaps=tuple(_gaps(random)),
            cells=tuple(
                cell(arm, 0.78 + 0.02 * n, *place) for place in PLACES for n, arm in enumerate(ARMS)
            ),
            organs=tuple(_organs(random)),
            absent={"bcv": 7},
        ),
        curves=tuple(_curves(random)),
        corpora=tuple(_corpora(random)),
        quarantine=(
            Aside(where="cohorts/radiographs", code="duplicate", meaning="seen before", count=3),
            Aside(where="corpus/synthetic", code="E_IMG_BLANK", meaning="one grey", count=1),
        ),
        cost=(
            Cost(stage="corpus/synthetic", seconds=840.0, device="cpu", device_seconds=1680.0),
            Cost(stage="fits", seconds=9000.0, device="cpu", device_seconds=18000.0),
        ),
    )


def _gaps(random: np.random.Generator) -> Iterable[GapRow]:
    for baseline in ("scratch", "real", "drr", "primitives"):
        for dataset, arch in PLACES:
            if baseline == "drr":
                yield not_run(baseline, dataset, arch)
                continue
            middle, reach = random.normal(1.5, 1.5), random.uniform(0.4, 1.6)
            at = (middle, middle - reach, middle + 1.2 * reach)
            p = 0.004 if abs(middle) > 1.2 * reach else 0.4
            yield gap(
                baseline=baseline, dataset=dataset, arch=arch, at=at, p_holm=p,
                tost_p=0.01 if abs(middle) + reach < 1.5 else 0.6, mde=1.4 * reach,
            )  # fmt: skip
    for arm in ("real", "primitives"):
        for n, (dataset, arch) in enumerate(PLACES):
            at = (1.5 - n / 2, 0.5 - n / 2, 2.6 - n / 2)
            yield gap(arm, dataset=dataset, arch=arch, at=at, headline=False)


def _organs(random: np.random.Generator) -> Iterable[OrganCell]:
    for dataset, arch in PLACES:
        for label, organ in ORGANS.items():
            if dataset == "spleen" and label > 1:
                continue
            base = random.uniform(0.3, 0.95)
            for n, arm in enumerate(ARMS):
                dice = None if (label, arm) == (4, "real") else min(1.0, base + 0.01 * n)
                yield OrganCell(
                    dataset=dataset, arch=arch, arm=arm, label=label, organ=organ, n_patients=30,
                    dice=dice, nsd=dice,
                )  # fmt: skip


def _curves(random: np.random.Generator) -> Iterable[Curve]:
    for dataset, arch in PLACES:
        for n, arm in enumerate(ARMS):
            for fold in range(2):
                level = 0.3 - 0.03 * n + random.normal(0, 0.02)
                points = tuple(
                    (step, level + 1.2 * math.exp(-step / 400) + random.normal(0, 0.02))
                    for step in range(20, 2001, 80)
                )
                yield Curve(dataset=dataset, arch=arch, arm=arm, fold=fold, seed=0, points=points)


def _corpora(random: np.random.Generator) -> Iterable[CorpusShown]:
    for arm in ("real", "synthetic"):
        values = {f"{n:016x}": float(random.uniform()) for n in range(1, 30)}
        yield CorpusShown(
            arm=arm, digest="d" * 16, committed=29, rejected=2, quarantined=1,
            figures=(QualityFigure(name="lung_hu", low=-890.0, median=-812.0, high=-700.0),),
            ranked_by="reprojection_gain",
            samples=tuple(
                Sample(
                    id=id_, rank=rank, value=values[id_], preview=png(random, 392, 141),
                    radiograph=png(random, 128, 128) if arm == "synthetic" else None,
                )
                for id_, rank in chosen(values)
            ),
        )  # fmt: skip


def png(random: np.random.Generator, width: int, height: int) -> bytes:
    coarse = random.integers(0, 255, (height // 8, width // 8), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height)).save(file, "PNG")
    return file.getvalue()
