"""Steps of no weight, which wait, raise, kill their process: whatever real ones may do."""

import os
import signal
import time
from pathlib import Path

import torch

from ray_jobs.plan import Step
from synth_ct.kit.effort import Effort
from synth_ct.kit.recipe import Recipe

PATIENCE_S = 30.0


class Little(Recipe):
    number: int = 0


class OddError(RuntimeError):
    """Cannot be unpacked where it arrives."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


def write(recipe: Little, folder: Path, inputs: dict[str, Path], effort: Effort) -> None:
    """Its number and those of all its inputs."""
    below = sorted(f"{name}: {(path / 'n').read_text()}" for name, path in inputs.items())
    (folder / "n").write_text(f"{recipe.number} on {effort.device} of {below}")


def say_who(recipe: Little, folder: Path, inputs: dict[str, Path], effort: Effort) -> None:
    (folder / "n").write_text(f"{os.getpid()} {torch.get_num_threads()}")


def meet(recipe: Little, folder: Path, inputs: dict[str, Path], effort: Effort) -> None:
    """Begins, and goes on when another has begun as well."""
    begun = folder.parents[1] / "begun"
    begun.mkdir(exist_ok=True)
    (begun / str(recipe.number)).touch()
    until = time.monotonic() + PATIENCE_S
    while len(list(begun.iterdir())) < 2:
        assert time.monotonic() < until, "nobody else came"
        time.sleep(0.01)


def wait_for_sign(recipe: Little, folder: Path, inputs: dict[str, Path], effort: Effort) -> None:
    """Until there is a file `go` below the root; says in the workspace that it began."""
    (folder / f"begun-{len(list(folder.glob('begun-*')))}").touch()
    until = time.monotonic() + PATIENCE_S
    while not (folder.parents[1] / "go").exists():
        assert time.monotonic() < until, "nobody gave the sign"
        time.sleep(0.01)


def die_once(recipe: Little, folder: Path, inputs: dict[str, Path], effort: Effort) -> None:
    """What the dead have written is still there for those who come after."""
    if not (folder / "half").exists():
        (folder / "half").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "n").write_text(str(recipe.number))


def die(recipe: Little, folder: Path, inputs: dict[str, Path], effort: Effort) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(recipe: Little, folder: Path, inputs: dict[str, Path], effort: Effort) -> None:
    """Until there is a file `mended` below the root."""
    (folder / "tried").touch()
    if not (folder.parents[1] / "mended").exists():
        raise ValueError(f"no luck with {recipe.number}")


def fail_oddly(recipe: Little, folder: Path, inputs: dict[str, Path], effort: Effort) -> None:
    raise OddError("spleen", "too large")


def task(name: str, make: object, *inputs: Step, number: int = 0, gpus: float = 0.0) -> Step:
    recipe = Little(number=number)
    return Step(
        name=name,
        stage="folds",
        recipe=recipe,
        make=make,  # type: ignore[arg-type]
        inputs=inputs,
        gpus=gpus,
        where="task",
    )
