"""What may be said of a gap, and in which words. The evidence level chooses them.

Nothing is claimed without its interval and its minimum detectable gap: that a gap is there needs
a Holm-corrected p below 1 - level and an interval without zero, that it is negligible needs the
two one-sided tests. Everything else is "not shown", which is not "no difference".
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from reports.compare import Cell, Comparison, GapRow
from reports.protocol import Protocol

Verdict = Literal["higher", "lower", "equivalent", "not shown", "not run"]
NONE = "\N{EN DASH}"
"""In the place of a number that is not there."""
FEW_SEEDS = 3
"""With fewer, the luck of a training cannot be told from an effect."""
NETWORKS = {"swin": "Swin UNETR", "unet": "UNet"}
DATASETS = {"bcv": "BCV", "spleen": "MSD Spleen"}
TWINS = {"bcv": "abdomen", "spleen": "spleen"}
"""Data sets of a study that is not of patients: it has their layouts, not their cases."""
ARMS: Mapping[str, str] = {
    "scratch": "scratch",
    "real": "{ct}",
    "synthetic": "synthetic CT",
    "primitives": "primitives",
    "real_degraded": "degraded {ct}",
    "drr": "CT from DRRs",
    "prior_only": "prior only",
    "mixed": "mixed",
}
MEANING: Mapping[str, str] = {
    "scratch": "no pretraining",
    "real": "pretrained on the {ct} that the generator learned from",
    "synthetic": "pretrained on CT made from radiographs",
    "primitives": "pretrained on random bodies: is anatomy needed?",
    "real_degraded": "pretrained on {ct} through the autoencoder: what does compression cost?",
    "drr": "pretrained on CT made from DRRs of the generator's own CT: do radiographs add?",
    "prior_only": "pretrained on volumes made without diffusion: does it add anything?",
    "mixed": "pretrained on synthetic and {ct} by turns",
}
EVIDENCE: Mapping[str, str] = {
    "plumbing": "Trainings take seconds here, so the networks have not learned enough to compare "
    "anything. The run shows that every part works and that the parts fit together; its numbers "
    "are noise.",
    "phantom": "Procedural patients throughout. The result holds for them and says how the method "
    "behaves under known conditions; it is not evidence about real patients.",
    "real": "Radiographs and CT of patients.",
}
QUALITY: Mapping[str, str] = {
    "reprojection_gain": "likeness to its own film, less that to other patients'",
    "nearest_hu": "distance to the nearest training volume, HU",
    "lung_share": "lungs, share of the volume",
    "lung_hu": "lungs, median HU",
    "soft_hu": "soft tissue, median HU",
    "bone_hu": "bone, median HU",
    "body_share": "body, share of the volume",
    "fat_hu": "fat, median HU",
    "flesh_hu": "body without lungs, median HU",
    "lesser_lung_share": "lesser lung, share of its half",
    "reprojection": "likeness to its own film",
    "reprojection_others": "likeness to other patients' films",
    "film_of_nearest": "likeness of its film to that of the nearest training volume",
    "towards_right": "left and right as in training volumes",
    "towards_front": "front and back as in training volumes",
    "towards_head": "head and feet as in training volumes",
}
"""What the quality gate measures; the first `FIRST_READ` are what a reader needs."""
FIRST_READ = 6


class Words:
    """Names and verdicts of one study."""

    def __init__(self, comparison: Comparison, protocol: Protocol) -> None:
        assert comparison.evidence in EVIDENCE, comparison.evidence
        self.evidence = comparison.evidence
        self.claims = comparison.evidence != "plumbing"
        self.margin = protocol.margin_points
        self.level = protocol.level
        self.power = protocol.power
        self.ct = "real CT" if self.evidence == "real" else "source CT"

    def arm(self, arm: str) -> str:
        """An arm, as it is called where evidence of this level is reported."""
        return ARMS.get(arm, arm).replace("{ct}", self.ct)

    def meaning(self, arm: str) -> str:
        """What the arm was pretrained on."""
        return MEANING.get(arm, "an arm of this run's own").replace("{ct}", self.ct)

    def dataset(self, dataset: str) -> str:
        """A data set; a phantom twin does not bear the name of its model."""
        names = DATASETS if self.evidence == "real" else TWINS
        return names.get(dataset, dataset)

    def place(self, row: GapRow | Cell) -> str:
        """Data set and network."""
        return f"{self.dataset(row.dataset)}, {network(row.arch)}"

    def contrast(self, arm: str, baseline: str) -> str:
        """Arm against baseline."""
        return f"{self.arm(arm)} against {self.arm(baseline)}"

    def verdict(self, row: GapRow) -> Verdict:
        """What may be claimed of a headline contrast."""
        if row.status == "not run" or row.gap is None or row.lo is None or row.hi is None:
            return "not run"
        alpha = 1 - self.level
        if row.mde is not None and row.p_holm is not None and row.p_holm < alpha:
            if row.lo > 0:
                return "higher"
            if row.hi < 0:
                return "lower"
        if row.mde is not None and row.tost_p is not None and row.tost_p < alpha:
            return "equivalent"
        return "not shown"

    def statement(self, row: GapRow) -> str:
        """The verdict in words, with the numbers that it rests on."""
        verdict = self.verdict(row)
        if verdict == "not run":
            return f"{self.place(row)}: not run."
        said: Mapping[Verdict, str] = {
            "higher": f"{self.arm(row.arm)} is better",
            "lower": f"{self.arm(row.arm)} is worse",
            "equivalent": f"equivalent within {self._margin()}",
            "not shown": "a gap is not shown, nor is equivalence",
        }
        also = f", by less than {self.margin:g} {points(self.margin)}" * self._negligible(row)
        return (
            f"{self.place(row)}: {said[verdict]}{also}. {estimate(row)} points; "
            f"{self._tested(row)}; minimum detectable gap {number(row.mde)}; "
            f"{row.n_patients} patients, {counted(row.seeds, 'seed')}."
        )

    def note(self, row: GapRow) -> str:
        """The same in few words, for beside a drawn interval."""
        verdict = self.verdict(row)
        if verdict == "not run" or not self.claims:
            return ""
        also = ", negligible" * self._negligible(row)
        return f"{verdict}{also} · {self._tested(row)} · detectable {number(row.mde)}"

    def _tested(self, row: GapRow) -> str:
        if self.verdict(row) == "equivalent":
            return f"TOST p {p_value(row.tost_p)}"
        return f"Holm p {p_value(row.p_holm)}"

    def _margin(self) -> str:
        return f"±{self.margin:g} {points(self.margin)}"

    def _negligible(self, row: GapRow) -> bool:
        """There, and smaller than what the protocol calls worth having."""
        small = row.tost_p is not None and row.tost_p < 1 - self.level
        return small and self.verdict(row) in ("higher", "lower")

    def answer(self, rows: Sequence[GapRow]) -> str:
        """One or two sentences over all data sets and networks: synthetic CT against scratch."""
        if not self.claims:
            return "This run answers no scientific question."
        run = [row for row in rows if self.verdict(row) != "not run"]
        lost = f" {counted(len(rows) - len(run), 'comparison')} not run." if run != rows else ""
        if not run:
            return "Not answered: synthetic CT against scratch was not run."
        groups = {v: [r for r in run if self.verdict(r) == v] for v in PHRASES}
        clauses = [self._clause(v, group, len(run)) for v, group in groups.items() if group]
        return f"Pretraining on synthetic CT {'; it '.join(clauses)}.{lost}{luck(run)}"

    def _clause(self, verdict: Verdict, rows: Sequence[GapRow], total: int) -> str:
        where = f"{PHRASES[verdict].format(margin=self._margin())} in {len(rows)} of "
        where += counted(total, "comparison")
        up_to = "up to " * (len(rows) > 1)
        sure = f"minimum detectable gap {up_to}{number(max(row.mde or 0.0 for row in rows))}"
        if verdict == "not shown":
            return f"{where} ({sure})"
        ranked = sorted(rows, key=lambda row: (abs(row.gap or 0.0), row.dataset, row.arch))
        size = " to ".join(dict.fromkeys(estimate(row) for row in (ranked[0], ranked[-1])))
        test = "TOST" if verdict == "equivalent" else "Holm-corrected"
        worst = max((r.tost_p if verdict == "equivalent" else r.p_holm) or 0.0 for r in rows)
        p = p_value(worst, at_most=len(rows) > 1)
        return f"{where}, gap {size} points ({test} p {p}, {sure})"


PHRASES: Mapping[Verdict, str] = {
    "higher": "raises mean organ Dice above that of scratch",
    "lower": "lowers mean organ Dice below that of scratch",
    "equivalent": "leaves mean organ Dice equivalent to that of scratch within {margin}",
    "not shown": "is not shown to change mean organ Dice",
}


def luck(rows: Sequence[GapRow]) -> str:
    """A warning where too few trainings stand behind the rows."""
    fewest = min(row.seeds for row in rows)
    if fewest >= FEW_SEEDS:
        return ""
    return f" With {counted(fewest, 'seed')} an effect cannot be told from a lucky training."


def network(arch: str) -> str:
    """A network's name."""
    return NETWORKS.get(arch, arch)


def points(margin: float) -> str:
    """One point, or several."""
    return "point" if margin == 1 else "points"


def counted(count: int, thing: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def estimate(row: GapRow) -> str:
    """`+5.0 [4.0, 6.0]`."""
    return f"{number(row.gap, sign=True)} [{number(row.lo)}, {number(row.hi)}]"


def quality(name: str) -> str:
    """What a quality figure measures; one's own keeps its name."""
    return QUALITY.get(name, name)


def measured(name: str, value: float) -> str:
    """A quality figure's value: HU whole, shares and likenesses to a hundredth."""
    known = ".0f" if name.endswith("_hu") else ".2f"
    text = f"{value:{known if name in QUALITY else '.4g'}}"
    return text.replace("-", "\N{MINUS SIGN}") if text.strip("-0.") else text.removeprefix("-")


def signed(value: float) -> str:
    """With its sign, and a minus that is one; what rounds to nothing has none."""
    text = f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")
    return "0.0" if text[1:] == "0.0" else text


def number(value: float | None, *, sign: bool = False) -> str:
    """To a tenth; a dash where there is none."""
    if value is None:
        return NONE
    return signed(value) if sign else signed(value).removeprefix("+")


def p_value(p: float | None, *, at_most: bool = False) -> str:
    """`< 0.001`, `= 0.031`, or a dash; rounded up, so that none looks smaller than it is."""
    if p is None:
        return NONE
    if p < 0.001:
        return "< 0.001"
    return f"{'≤' if at_most else '='} {math.ceil(p * 1000 - 1e-6) / 1000:.3f}"
