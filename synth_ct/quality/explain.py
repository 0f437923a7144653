"""A rejection in words: what was measured, what is allowed, and what a person may try."""

from synth_ct.quality.reference import QualityReference
from synth_ct.quality.verdict import DIRECTIONS, REASONS, SHARED_REASONS, Verdict

ANOTHER = "take another --seed, or several --samples and those accepted"
TRAIN_LONGER = f"{ANOTHER}; where most fail, train the generator longer or on more patients"
LOOK_AT_FILM = f"see that the film is a frontal chest, not mirrored; {ANOTHER}"
REMEDIES = {
    "not_finite": "take another --seed; where it comes again, train the generator anew",
    "memorised": "do not take it for a new patient: take another --seed",
    "reprojection": LOOK_AT_FILM,
} | dict.fromkeys(DIRECTIONS.values(), LOOK_AT_FILM)


def explained(verdict: Verdict, reference: QualityReference) -> str:
    """Why it was rejected: code, meaning, figure and limit; nothing for one accepted."""
    if verdict.accepted:
        return ""
    limit = _limit(verdict, reference)
    return f"{verdict.reason}: {REASONS[verdict.reason]}" + (f" ({limit})" if limit else "")


def remedy(reason: str) -> str:
    """What a person may try after a rejection."""
    return REMEDIES.get(reason, TRAIN_LONGER)


def _limit(verdict: Verdict, reference: QualityReference) -> str:
    """The figure that failed, beside what is allowed."""
    reason, figures = verdict.reason, verdict.figures
    shown = {name: _number(value) for name, value in figures.items()}
    for name, (low, high) in reference.ranges.items():
        value = figures[name]
        outside = value is None or not low <= value <= high
        if reason == SHARED_REASONS.get(name, name) and outside:
            return f"{name} {shown[name]}, allowed {_number(low)} to {_number(high)}"
    for name, least in zip(DIRECTIONS, reference.least_directions, strict=True):
        if reason == DIRECTIONS[name]:
            return f"{name} {shown[name]}, allowed over {_number(least)}"
    if reason == "reprojection":
        least_gain = _number(reference.least_gain)
        return f"reprojection_gain {shown['reprojection_gain']}, allowed over {least_gain}"
    if reason == "memorised":
        least_hu = _number(reference.least_distance_hu)
        return f"nearest_hu {shown['nearest_hu']}, allowed from {least_hu}"
    return ""


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"
