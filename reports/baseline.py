"""Is the baseline worth beating? Scratch beside what others published from scratch.

This is the one place where a quoted number meets a measured one, and all that comes of it is a
sentence.
"""

from collections.abc import Mapping

from reports.quoted import Quote, read_quotes

ANCHORS: Mapping[str, tuple[str, str]] = {
    "bcv": ("Isensee et al., nnU-Net Revisited, arXiv 2404.09556", "nnU-Net"),
    "spleen": ("MONAI tutorials, Auto3DSeg", "SegResNet"),
}
"""Data set -> source and system of the number that a good baseline comes near to."""
FAR_POINTS = 5.0
"""A pretrained network that beats a baseline this far below the published one may only have made
up for what a better recipe gives without any pretraining."""
METRIC = "dice_percent"


def anchor(dataset: str) -> Quote | None:
    """What stands beside scratch; None for a data set of which nothing is quoted."""
    if dataset not in ANCHORS:
        return None
    source, system = ANCHORS[dataset]
    (found,) = (
        q for q in read_quotes() if (q.source, q.system, q.metric) == (source, system, METRIC)
    )
    return found


def weak_baseline(dataset: str, dice: float) -> str | None:
    """The sentence, if scratch's mean organ Dice (0-1) lies far below the published number."""
    quote = anchor(dataset)
    if quote is None or 100 * dice > float(quote.value) - FAR_POINTS:
        return None
    return (
        f"Weak baseline: scratch reaches a mean organ Dice of {100 * dice:.1f} on {dataset}, where "
        f"{quote.system} trained from scratch is quoted at {quote.value} ({quote.source}; "
        f"{quote.protocol}). A gap above a weak baseline may vanish above a strong one."
    )
