"""`synth-ct pretrain`: one encoder from a corpus of one's own."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ray_jobs.console import tell
from ray_jobs.options import AsJson, Seed, Setting

if TYPE_CHECKING:
    from pretrain.stage import PretrainRecipe
    from synth_ct.corpus import Corpus


def pretrain(
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", exists=True, help="A finished corpus; adopted, too.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The encoder to make.")],
    recipe: Annotated[
        str, typer.Option(help="A named run, or a .toml file: whose networks are at hand.")
    ] = "small",
    network: Annotated[str, typer.Option(help="One of its networks.")] = "swin",
    settings: Setting = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Pretrain a network on a corpus; run the same command again to continue.

    Example: synth-ct pretrain corpus/ encoders/mine --recipe tiny --network unet
    """
    from pretrain.stage import PROBE, pretrain_stage
    from synth_ct.corpus import Corpus
    from synth_ct.kit.artifact import Record, is_done, publish
    from synth_ct.kit.effort import Effort
    from synth_ct.kit.numerics import device
    from synth_ct.kit.progress import progress

    opened = Corpus.open(corpus)
    chosen = _recipe(opened, recipe, network, settings or [], seed)
    wanted = Record(
        kind="encoder/own",
        recipe=chosen.model_dump(mode="json"),
        inputs={"corpus": opened.record.fingerprint},
    )
    if not is_done(out, wanted):
        with (
            publish(out, wanted, device()) as workspace,
            progress("pretraining", chosen.network.training.steps) as tick,
        ):
            effort = Effort(device=device(), begin=lambda _: tick)
            pretrain_stage(chosen, workspace, {"corpus": corpus}, effort)
    result = {"out": str(out), "steps": chosen.network.training.steps, "seed": seed}
    answers = json.loads((out / PROBE).read_text())
    tell({**result, "evidence": chosen.evidence, "probe": answers}, _lines(out, answers), as_json)


def _recipe(
    corpus: "Corpus", name: str, network: str, settings: list[str], seed: int
) -> "PretrainRecipe":
    """That network of that run, on this corpus."""
    from pretrain.stage import PretrainRecipe
    from ray_jobs.plan import demand_gpu
    from ray_jobs.recipes import find_recipe, with_settings
    from synth_ct.kit.recipe import changed

    try:
        run = with_settings(find_recipe(name), settings)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    networks = run.pretraining.networks if run.pretraining else {}
    if network not in networks:
        there = ", ".join(networks) or "none"
        raise typer.BadParameter(f"recipe {name} has no network {network!r}; there are {there}")
    found = networks[network]
    if not corpus.about.spacing_mm:
        raise ValueError(
            f"the volumes of {corpus.folder} have several spacings, and a network learns on one "
            "grid: bring them to one spacing before `synth-ct corpus adopt`"
        )
    demand_gpu(run.name, run.gpus)
    x, y, z = corpus.about.spacing_mm
    return PretrainRecipe(
        network=changed(found, training=changed(found.training, seed=seed)),
        arm="own",
        evidence="plumbing" if run.evidence == "plumbing" else corpus.about.evidence,
        spacing_mm=(x, y, z),
    )


def _lines(out: Path, answers: dict[str, Any]) -> list[str]:
    """What was made, and what the probe found."""
    from pretrain.encoder import Encoder

    encoder = Encoder.open(out)  # as whoever loads it will
    about = encoder.adaptation
    lines = [
        f"{out}: {about.architecture.kind}, {about.transferred}, {len(encoder.tensors)} tensors, "
        f"{about.steps} steps, evidence: {about.evidence}"
    ]
    names = {"untrained": "probe before", "trained": "probe after", "gain": "gained"}
    lines += [
        f"{names[when]:13} R^2 {found['r2']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
        for when, found in answers.items()
    ]
    return lines
