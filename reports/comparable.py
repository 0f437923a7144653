"""May these fits be compared? Everything but the arm must be the same, and nothing chosen by test.

A gap between runs that differ in more than the arm says nothing about the arm, so it is refused,
and the fields that differ are named.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from finetune.results import Fit, demand_no_leak
from reports.protocol import NAME, Protocol, fingerprint
from synth_ct.kit.artifact import differing_fields

ENCODER = "encoder/"
SHOWN = 5
"""Names in one message."""


def name_of(fit: Fit) -> str:
    """The folder of a fit, below the root."""
    return f"fits/{fit.name}"


def fit_name(dataset: str, arch: str, arm: str, fold: int, seed: int) -> str:
    """Where a fit lives, whether or not it is there."""
    return f"fits/{dataset}-{arch}-{arm}-f{fold}-s{seed}"


def in_order(fits: Sequence[Fit]) -> list[Fit]:
    """Fits by name; in whatever order they finished, the same numbers come out."""
    return sorted(fits, key=lambda f: (f.dataset, f.arch, f.arm, f.seed, f.fold))


def pairs_of(fits: Sequence[Fit]) -> Iterator[tuple[tuple[str, str], list[Fit]]]:
    """The fits of each (dataset, arch), within which arms are compared."""
    for key, found in groupby(in_order(fits), key=lambda f: (f.dataset, f.arch)):
        yield key, list(found)


def demand_comparable(fits: Sequence[Fit], protocol: Protocol) -> None:
    """Raise, saying which fit and which field, unless arms may be compared as asked."""
    if not fits:
        raise ValueError("there are no fits to compare; run the stage `folds` first")
    demand_last(fits)
    _demand_protocol(fits, protocol)
    _demand_foreseen(fits, protocol)
    _demand_one_evidence(fits)
    for _, several in pairs_of(fits):
        first, *others = several
        for fit in others:
            _demand_same_but_for_the_arm(first, fit)
        _demand_same_questions(several)
    demand_no_leak(fits)


def demand_last(fits: Sequence[Fit]) -> None:
    """A network chosen by the cases it is scored on is scored too high."""
    for fit in fits:
        kept = fit.config["finetuning"]["checkpoint"]
        if kept != "last":
            raise ValueError(
                f"{name_of(fit)} kept another network than its last one (finetuning.checkpoint is "
                f"{kept!r}): it may have been chosen by its test cases, and then its scores are "
                "too good; fit it again with finetuning.checkpoint = 'last'"
            )


def missing_fits(fits: Sequence[Fit], protocol: Protocol) -> list[str]:
    """What the protocol asks for on each data set and network that was begun, and is not there."""
    there = {name_of(fit) for fit in fits}
    return [
        name
        for (dataset, arch), _ in pairs_of(fits)
        for arm in protocol.arms
        for name in names_of_cell(dataset, arch, arm, protocol)
        if name not in there
    ]


def names_of_cell(dataset: str, arch: str, arm: str, protocol: Protocol) -> list[str]:
    """Every fit of an arm."""
    return [
        fit_name(dataset, arch, arm, fold, seed)
        for seed in protocol.seeds
        for fold in range(protocol.folds)
    ]


def _demand_protocol(fits: Sequence[Fit], protocol: Protocol) -> None:
    frozen = fingerprint(protocol)
    others = [name_of(fit) for fit in fits if fit.inputs.get(NAME) != frozen]
    if others:
        raise ValueError(
            f"inputs.{NAME} of {_listed(others)} is not {frozen}: the protocol was not frozen "
            "before these fits, or it is another one. Compare them under their own protocol, or "
            "fit anew under this one"
        )


def _demand_foreseen(fits: Sequence[Fit], protocol: Protocol) -> None:
    names = [name_of(fit) for fit in fits]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{_listed(twice)} given more than once; give each fit once")
    for fit in fits:
        foreseen = {"arm": protocol.arms, "fold": range(protocol.folds), "seed": protocol.seeds}
        if odd := [field for field, known in foreseen.items() if getattr(fit, field) not in known]:
            raise ValueError(
                f"{name_of(fit)} is not in the protocol ({', '.join(odd)}); what is added after "
                "the first fit belongs in a study of its own"
            )
        asked = f"{ENCODER}{fit.config['finetuning']['network']}-{fit.arm}-s{fit.seed}"
        given = [name for name in fit.inputs if name.startswith(ENCODER)]
        if given != [asked]:
            raise ValueError(
                f"{name_of(fit)} began from {_listed(given) or 'no encoder'} and not from {asked}: "
                "it is not the arm and seed that it says; fit it again from its own encoder"
            )


def _demand_one_evidence(fits: Sequence[Fit]) -> None:
    levels = sorted({str(fit.config["evidence"]) for fit in fits})
    if len(levels) > 1:
        raise ValueError(
            f"fits of evidence {' and '.join(levels)} stand in one study (config.evidence); "
            "report them apart"
        )


def _demand_same_but_for_the_arm(first: Fit, fit: Fit) -> None:
    fields = differing_fields(_all_but_arm(first), _all_but_arm(fit))
    if fields:
        raise ValueError(
            f"{name_of(first)} and {name_of(fit)} differ in more than the arm: "
            f"{', '.join(fields)}. A gap between them would not be the arm's; make them alike"
        )


def _all_but_arm(fit: Fit) -> Any:
    inputs = {name: print_ for name, print_ in fit.inputs.items() if not name.startswith(ENCODER)}
    fields = {"config": fit.config, "inputs": inputs, "steps": fit.steps}
    return json.loads(json.dumps(fields))  # a tuple and the list it was read back as are the same


def _demand_same_questions(several: Sequence[Fit]) -> None:
    """The fits of one fold score the same organs of the same cases of the same patients."""
    asked: dict[int, tuple[Fit, set[tuple[str, str, int]]]] = {}
    for fit in several:
        rows = {(score.patient, score.case, score.label) for score in fit.scores}
        if not rows or len(rows) < len(fit.scores):
            raise ValueError(f"{name_of(fit)} scores nothing, or something twice; score it again")
        first, wanted = asked.setdefault(fit.fold, (fit, rows))
        if rows != wanted:
            odd = sorted({patient for patient, _, _ in rows ^ wanted})
            raise ValueError(
                f"{name_of(first)} and {name_of(fit)} were not asked the same: patients "
                f"{_listed(odd)} differ. Gaps are paired by patient; score both on the same cases"
            )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
