"""The encoder stage of a run: every network on every arm with every seed, each a folder."""

from collections.abc import Mapping, Sequence

from pretrain.arms import CORPORA
from pretrain.stage import PretrainRecipe, pretrain_stage
from ray_jobs.plan import Step
from ray_jobs.recipes import Run
from synth_ct.kit.recipe import changed
from synth_ct.kit.volume import spacing_mm
from synth_ct.pairs.arrays import working_affine


def encoder_steps(run: Run, corpora: Sequence[Step]) -> list[Step]:
    """Named by network, arm and seed: `encoder/swin-synthetic-s0`."""
    named = {step.name: step for step in corpora}
    plan = run.pretraining
    if plan is None:
        return []
    return [
        _step(run, network, seed, PretrainRecipe(
            network=changed(found, training=changed(found.training, seed=seed)),
            arm=arm,
            evidence=run.evidence,
            spacing_mm=spacing_mm(working_affine(run.generator.size)),
            volumes=plan.volumes_of(network),
        ), named)
        for seed in plan.seeds
        for network, found in plan.networks.items()
        for arm in plan.arms
    ]  # fmt: skip


def _step(
    run: Run, network: str, seed: int, recipe: PretrainRecipe, corpora: Mapping[str, Step]
) -> Step:
    return Step(
        name=f"encoder/{network}-{recipe.arm}-s{seed}",
        stage="encoder",
        recipe=recipe,
        make=pretrain_stage,
        inputs=tuple(corpora[name] for name in CORPORA[recipe.arm]),
        gpus=run.gpus if recipe.arm != "scratch" else 0.0,
        where="task",
    )
