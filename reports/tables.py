"""The rows of `report.json`, with exactly the keys that others may rely on."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from finetune.results import Fit
from reports.comparable import in_order
from reports.compare import Comparison, endpoint

FIT_KEYS = ("dataset", "arch", "arm", "fold", "seed", "dice", "nsd", "n_cases", "steps")
GAP_KEYS = (
    "dataset", "arch", "arm", "baseline", "n_patients", "seeds",
    "gap", "lo", "hi", "p", "p_holm", "tost_p", "mde",
)  # fmt: skip


def fit_rows(fits: Sequence[Fit]) -> list[dict[str, Any]]:
    """One row a fit; Dice and NSD are 0-1, means over the patients it was asked about."""
    return [
        {
            "dataset": fit.dataset,
            "arch": fit.arch,
            "arm": fit.arm,
            "fold": fit.fold,
            "seed": fit.seed,
            "dice": fmean(endpoint([fit], "dice").values()),
            "nsd": fmean(endpoint([fit], "nsd").values()),
            "n_cases": len({score.case for score in fit.scores}),
            "steps": fit.steps,
        }
        for fit in in_order(fits)
    ]


def gap_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row a contrast, in points; of one that was not run all numbers are null."""
    return [{key: getattr(row, key) for key in GAP_KEYS} for row in comparison.gaps]
