"""The corpus stage of a run: the engine of `synth-ct generate`, filling a step's workspace."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from ray_jobs.cluster import Cluster, connect, joins
from ray_jobs.generate import Pool, demand_cpus, demand_gpus
from ray_jobs.plan import Step
from ray_jobs.recipes import Run
from synth_ct.kit.effort import Effort
from synth_ct.production.commission import commission
from synth_ct.production.executor import Executor
from synth_ct.production.films import count_of, films_of
from synth_ct.production.local import Processes
from synth_ct.production.order import CorpusRecipe
from synth_ct.production.stage import Hands, fill

RADIOGRAPHS = "cohorts/radiographs"


def corpus_steps(run: Run, generator: Step, radiographs: Step) -> list[Step]:
    """The corpora of a run."""
    synthetic = Step(
        name="corpus/synthetic",
        stage="corpus",
        recipe=run.corpus,
        make=partial(make_synthetic, run.gpus > 0),
        inputs=(generator, radiographs),
        gpus=0.0 if joins() else run.gpus,  # only the cluster knows the GPUs of a cluster
    )
    return [synthetic]


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
    if effort.workers == 0:
        executor: Executor = Processes(count=1)
        fill(order, model, recipe, workspace, Hands(executor=executor, effort=effort))
        return
    with connect(cpus=effort.workers + 1) as cluster:
        pool = _pool(on_gpus, effort, cluster)
        theirs = replace(effort, device="cuda" if pool.gpus else "cpu")
        fill(order, model, recipe, workspace, Hands(executor=pool, effort=theirs))


def _pool(on_gpus: bool, effort: Effort, cluster: Cluster) -> Pool:
    """One actor a GPU, or one a core; what the cluster cannot give is refused."""
    pool = Pool(least=1, most=effort.workers)
    if on_gpus:
        pool = Pool(least=1, most=max(1, cluster.gpus), gpus=1.0)
    demand_cpus(pool)
    demand_gpus(pool, 0)
    return pool
