"""The stage: radiographs and a generator in, a finished corpus out; run again to continue."""

from dataclasses import dataclass
from pathlib import Path

from synth_ct.corpus import Corpus
from synth_ct.corpus.about import About
from synth_ct.corpus.receipts import finished_entries
from synth_ct.generator import find_generator
from synth_ct.kit.artifact import Record, is_done, publish, reopen
from synth_ct.kit.effort import Effort
from synth_ct.production.commission import commission
from synth_ct.production.executor import Executor
from synth_ct.production.films import Films
from synth_ct.production.maker import LoadMaker
from synth_ct.production.order import CorpusRecipe
from synth_ct.production.produce import Order, produce


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """Who works, and on what. Nothing here changes a bit within one numerics fingerprint."""

    executor: Executor
    effort: Effort
    """Its device is the workers'."""


def make_corpus(
    films: Films,
    model: Path,
    recipe: CorpusRecipe,
    out: Path,
    hands: Hands,
    retry: frozenset[str] = frozenset(),
) -> About:
    """A finished corpus at `out`. Films that were added while it was unfinished are taken in.

    One that is finished is taken up again: ask `finished` first whether there is anything to do.
    `retry` tries items again that were quarantined with one of these codes.
    """
    order = commission(films, model, recipe)
    wanted = wanted_record(order, recipe)
    if is_done(out, wanted):
        reopen(out, wanted)
    with publish(out, wanted, hands.effort.device) as workspace:
        return fill(order, model, recipe, workspace, hands, retry)


def finished(
    films: Films, model: Path, recipe: CorpusRecipe, out: Path, retry: frozenset[str]
) -> About | None:
    """The corpus that is there already, if nothing is left to do; nothing is loaded or started."""
    order = commission(films, model, recipe)
    if not is_done(out, wanted_record(order, recipe)):
        return None
    about = Corpus.open(out).about
    if not retry:
        _demand_same_films(order, out)
        return about
    if not retry & set(about.codes):
        raise ValueError(
            f"{out} has nothing quarantined as {', '.join(sorted(retry))}; its codes are "
            f"{', '.join(about.codes) or 'none'}"
        )
    return None


def fill(
    order: Order,
    model: Path,
    recipe: CorpusRecipe,
    workspace: Path,
    hands: Hands,
    retry: frozenset[str] = frozenset(),
) -> About:
    """Fill a workspace with a corpus."""
    load = LoadMaker(
        model=find_generator(model).resolve(),
        device=hands.effort.device,
        recipe=recipe,
        workspace=workspace.resolve(),
    )
    return produce(order, workspace.resolve(), load, hands.executor, hands.effort, retry)


def wanted_record(order: Order, recipe: CorpusRecipe) -> Record:
    """Of a corpus of its own. Which films it is made from is in its manifest, not in its recipe."""
    return Record(
        kind="corpus",
        recipe=recipe.model_dump(mode="json"),
        inputs={"generator": order.about.model},
    )


def _demand_same_films(order: Order, out: Path) -> None:
    done = {entry.id for entry in finished_entries(out)}
    new = sum(item.id not in done for item in order.items)
    if new:
        raise ValueError(
            f"{out} is finished and {new} of these radiographs are not in it; a finished corpus "
            "never changes: make one of the new ones, and join both with `synth-ct corpus merge`"
        )
