"""Scores to the rows of a table: one system under one protocol, each metric an estimate.

A metric is estimated over patients or it is absent, and then the row says why.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from synth_ct.evaluation.protocols import Protocol, Scores
from synth_ct.kit.seeds import numpy_random
from synth_ct.kit.statistics import Estimate, Gap, by_patient, estimate, holm, paired_gap

METRICS = (
    "psnr", "ssim", "mae_hu", "lpips", "fid", "kid", "dice", "projection_error", "code_usage",
)  # fmt: skip
"""What a row tells, in this order."""
COMPARED = ("psnr", "ssim")
"""What systems are compared by, pair by pair."""
TISSUE, SHARE = "mae_hu/", "share/"


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What is evaluated, and what it costs."""

    name: str
    views: int | None = 1
    """Radiographs it reads; None where it reads none, or the CT itself."""
    params: int | None = None
    tmacs: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One system under one protocol."""

    system: System
    protocol: str
    n: int
    """Patients."""
    metrics: Mapping[str, Estimate]
    tissues: Mapping[str, Estimate] = field(default_factory=dict)
    """Error in HU of each tissue."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """How much of the truth each tissue is."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Why a metric is not there."""

    def with_metrics(self, more: Mapping[str, Estimate]) -> "Row":
        """Also what was measured on the whole set: FID, KID, code usage."""
        absent = {metric: why for metric, why in self.absent.items() if metric not in more}
        return replace(self, metrics={**self.metrics, **more}, absent=absent)

    def as_json(self) -> dict[str, Any]:
        """For machines: every metric is named, null where there is none."""
        system = self.system
        metrics = {name: _fields(self.metrics.get(name)) for name in METRICS}
        tissues = {
            tissue: {**error._asdict(), "share": self.shares[tissue]}
            for tissue, error in self.tissues.items()
        }
        return {
            "system": system.name,
            "views": system.views,
            "protocol": self.protocol,
            "n": self.n,
            "params": system.params,
            "tmacs": system.tmacs,
            **metrics,
            "tissues": tissues,
            "absent": dict(self.absent),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """One system minus another, on the same patients."""

    system: str
    against: str
    protocol: str
    gaps: Mapping[str, Gap]
    p_holm: Mapping[str, float]
    """Corrected for all pairs and metrics compared at once."""

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        gaps = {
            metric: {**self.gaps[metric]._asdict(), "p_holm": self.p_holm[metric]}
            if metric in self.gaps
            else None
            for metric in COMPARED
        }
        head = {"system": self.system, "against": self.against, "protocol": self.protocol}
        return head | gaps


def summarise(
    system: System,
    protocol: Protocol,
    scores: Scores,
    patients: Mapping[str, str],
    seed: int,
    absent: Mapping[str, str],
) -> Row:
    """The row of one system; `absent` says why a metric could not be had."""
    values = by_metric(scores)
    reasons = {metric: absent.get(metric, "not measured") for metric in METRICS}
    if not protocol.lpips:
        reasons["lpips"] = "not part of the protocol"
    found: dict[str, Estimate] = {}
    for metric, of_case in values.items():
        if all(map(math.isfinite, of_case.values())):
            values_N = np.array(list(by_patient(of_case, patients).values()))
            found[metric] = estimate(values_N, numpy_random(seed, "bootstrap", metric))
        else:
            reasons[metric] = "infinite: a case is reproduced without error"
    return Row(
        system=system,
        protocol=protocol.name,
        n=len({patients[case] for case in scores}),
        metrics={metric: found[metric] for metric in METRICS if metric in found},
        tissues=_under(TISSUE, found),
        shares={tissue: share.mean for tissue, share in _under(SHARE, found).items()},
        absent={metric: why for metric, why in reasons.items() if metric not in found},
    )


def compare(
    scores: Mapping[str, Scores], protocol: Protocol, patients: Mapping[str, str], seed: int
) -> list[Pairing]:
    """Every system minus every earlier one: paired over patients, Holm over all of it.

    One patient allows no comparison, and a volume without error has no finite PSNR to compare.
    """
    if len({patients[case] for of_case in scores.values() for case in of_case}) < 2:
        return []
    metrics = {system: by_metric(of_case) for system, of_case in scores.items()}
    gaps: dict[tuple[str, str, str], Gap] = {}
    for against, system in combinations(scores, 2):
        for metric in COMPARED:
            ours, theirs = metrics[system][metric], metrics[against][metric]
            gap = _gap(ours, theirs, patients, numpy_random(seed, "pairs", metric))
            if gap is not None:
                gaps[against, system, metric] = gap
    corrected = dict(zip(gaps, holm([gap.p for gap in gaps.values()]), strict=True))
    return [
        Pairing(
            system=system,
            against=against,
            protocol=protocol.name,
            gaps={m: gaps[against, system, m] for m in COMPARED if (against, system, m) in gaps},
            p_holm={
                m: corrected[against, system, m] for m in COMPARED if (against, system, m) in gaps
            },
        )
        for against, system in combinations(scores, 2)
    ]


def by_metric(scores: Scores) -> dict[str, dict[str, float]]:
    """case -> metric -> value becomes metric -> case -> value."""
    turned: dict[str, dict[str, float]] = {}
    for case, values in scores.items():
        for metric, value in values.items():
            turned.setdefault(metric, {})[case] = value
    return turned


def _gap(
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    patients: Mapping[str, str],
    random: np.random.Generator,
) -> Gap | None:
    if ours.keys() != theirs.keys():
        raise ValueError(
            f"systems were scored on {len(ours)} and {len(theirs)} cases that are not the same; "
            "score every system on the whole test part"
        )
    if not all(map(math.isfinite, [*ours.values(), *theirs.values()])):
        return None
    a, b = by_patient(ours, patients), by_patient(theirs, patients)
    return paired_gap(np.array(list(a.values())), np.array(list(b.values())), random)


def _under(prefix: str, found: Mapping[str, Estimate]) -> dict[str, Estimate]:
    return {
        name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)
    }


def _fields(value: Estimate | None) -> dict[str, float | None] | None:
    return None if value is None else value._asdict()
