"""The corpus stage of a run: the engine of `synth-ct generate`, filling a step's workspace."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from pretrain.arms import CORPORA
from ray_jobs.cluster import Cluster, connect, joins
from ray_jobs.generate import Pool, demand_cpus, demand_gpus
from ray_jobs.plan import Make, Step
from ray_jobs.recipes import Run
from synth_ct.kit.effort import Effort
from synth_ct.kit.recipe import Recipe, changed
from synth_ct.production.commission import commission
from synth_ct.production.controls import ControlRecipe, fill_control
from synth_ct.production.films import count_of, films_of
from synth_ct.production.local import Processes
from synth_ct.production.order import CorpusRecipe
from synth_ct.production.stage import Hands, fill

RADIOGRAPHS, PAIRS = "cohorts/radiographs", "cohorts/pairs"


def corpus_steps(run: Run, generator: Step, radiographs: Step, pairs: Step) -> list[Step]:
    """The corpus of the question, and those that the run's control arms read."""
    arms = run.pretraining.arms if run.pretraining else ()
    wanted = {"corpus/synthetic"}.union(*(CORPORA[arm] for arm in arms))
    gpus = 0.0 if joins() else run.gpus  # only the cluster knows the GPUs of a cluster

    def step(name: str, recipe: Recipe, make: Make, *inputs: Step, gpus: float = gpus) -> Step:
        full = f"corpus/{name}"
        return Step(name=full, stage="corpus", recipe=recipe, make=make, inputs=inputs, gpus=gpus)

    synthetic = partial(make_synthetic, run.gpus > 0)
    control = partial(make_control, run.gpus > 0)
    seed = run.corpus.seed
    prior_only = changed(run.corpus, prior_only=True)
    every = [
        step("synthetic", run.corpus, synthetic, generator, radiographs),
        step("prior_only", prior_only, synthetic, generator, radiographs),
        step("real", ControlRecipe(control="real", seed=seed), control, pairs, gpus=0.0),
        step(
            "real_degraded",
            ControlRecipe(control="real_degraded", seed=seed),
            control,
            pairs,
            generator,
        ),
        step("drr", ControlRecipe(control="drr", seed=seed), control, pairs, generator),
    ]
    return [each for each in every if each.name in wanted]


def make_control(
    on_gpus: bool,
    recipe: ControlRecipe,
    workspace: Path,
    inputs: dict[str, Path],
    effort: Effort,
) -> None:
    """A corpus of the generator's training patients."""
    models = [folder for name, folder in inputs.items() if name.startswith("generator/")]
    model = models[0] if models else None
    with _hands(on_gpus and model is not None, effort) as hands:
        fill_control(recipe, inputs[PAIRS], model, workspace, hands)


def make_synthetic(
    on_gpus: bool,
    recipe: CorpusRecipe,
    workspace: Path,
    inputs: dict[str, Path],
    effort: Effort,
) -> None:
    """A volume for every radiograph; on Ray, unless no worker is asked for."""
    (model,) = (folder for name, folder in inputs.items() if name.startswith("generator/"))
    source = inputs[RADIOGRAPHS]
    films = films_of(source, effort.begin(count_of(source)))
    order = commission(films, model, recipe)
    with _hands(on_gpus, effort) as hands:
        fill(order, model, recipe, workspace, hands)


@contextmanager
def _hands(on_gpus: bool, effort: Effort) -> Generator[Hands, None, None]:
    """Actors on Ray; where no worker is asked for, one process."""
    if effort.workers == 0:
        yield Hands(executor=Processes(count=1), effort=effort)
        return
    with connect(cpus=effort.workers + 1) as cluster:
        pool = _pool(on_gpus, effort, cluster)
        yield Hands(executor=pool, effort=replace(effort, device="cuda" if pool.gpus else "cpu"))


def _pool(on_gpus: bool, effort: Effort, cluster: Cluster) -> Pool:
    """One actor a GPU, or one a core; what the cluster cannot give is refused."""
    pool = Pool(least=1, most=effort.workers)
    if on_gpus:
        pool = Pool(least=1, most=max(1, cluster.gpus), gpus=1.0)
    demand_cpus(pool)
    demand_gpus(pool, 0)
    return pool
