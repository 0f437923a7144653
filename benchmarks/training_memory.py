"""What a training step keeps in a GPU's memory, counted on tensors without memory.

    python benchmarks/training_memory.py

    bytes(b) = 16 p + b a        weights, gradients, two moments in float32; what backward keeps
    largest b = (3/4 GPU - 16 p) / a

Prints the table of docs/forecast.md. A quarter of the GPU is left for what is not counted:
gradients of activations, workspaces, the allocator's gaps. Averaged weights take 4 p more.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pretrain.backbones import build
from pretrain.objectives import build_objective, out_channels
from pretrain.objectives.swin3 import Swin3Recipe
from ray_jobs.recipes import Run, paper, small
from ray_jobs.workload import CLASSES
from synth_ct.kit.loop import Training
from synth_ct.kit.recipe import changed
from synth_ct.models.autoencoder import Autoencoder
from synth_ct.models.denoiser import Denoiser
from synth_ct.models.progressive_encoder import ProgressiveEncoder

GB = 1e9
GPUS_GB = (8, 16, 24)
LEFT_FOR_THE_REST = 0.25
BYTES_OF_A_WEIGHT = 16


class Trained(NamedTuple):
    """A network and one micro-batch of its training."""

    name: str
    nets: Sequence[nn.Module]
    call: Callable[..., Any]
    shapes: Sequence[tuple[int, ...]]
    training: Training
    average: bool

    @property
    def state(self) -> int:
        """Bytes that do not grow with the batch."""
        each = BYTES_OF_A_WEIGHT + (4 if self.average else 0)
        return each * sum(p.numel() for net in self.nets for p in net.parameters())


def kept_for_backward(work: Trained) -> int:
    """Bytes of all storages that autograd saves in one forward pass, each once, but for weights."""
    weights = {p.untyped_storage()._cdata for net in work.nets for p in net.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no number is given twice
    half = work.training.precision == "bfloat16"

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        outputs = work.call(*(torch.zeros(shape) for shape in work.shapes))
    assert outputs is not None
    return sum(storage.nbytes() for storage in kept.values())


def segmentation(run: Run) -> Iterator[Trained]:
    """Pretraining and fine-tuning."""
    assert run.pretraining is not None, "small and paper have it"
    assert run.folds is not None, "likewise"
    for name, network in run.pretraining.networks.items():
        backbone = build(network.backbone, out_channels(network.objective), 0)
        heads: Any = build_objective(network.objective, backbone, network.crop, 0)
        batch, views = network.training.micro_batch, 1
        if isinstance(network.objective, Swin3Recipe):
            views = 2

            def call(x: Tensor, net: Any = backbone, on: Any = heads) -> Any:
                return on.outputs(net.encode(x)[-1])
        else:

            def call(x: Tensor, net: Any = backbone, on: Any = heads) -> Any:
                return on.network(net, x)

        shape = (views * batch, 1, *network.crop)
        nets = [backbone, heads]
        yield Trained(f"pretraining {name}", nets, call, [shape], network.training, False)
    for name, fit in run.folds.networks.items():
        network = run.pretraining.networks[fit.network]
        whole = build(network.backbone, CLASSES, 0)
        shape = (fit.training.micro_batch, 1, *fit.crop.sides)
        yield Trained(f"fine-tuning {name}", [whole], whole, [shape], fit.training, False)


def generation(run: Run) -> Iterator[Trained]:
    """The generator's three networks of volumes; without discriminators and perceptual loss."""
    recipe = run.generator
    sizes, side = recipe.autoencoder.sizes, recipe.autoencoder.crop or recipe.size
    batch = recipe.autoencoder.training.micro_batch
    autoencoder = Autoencoder(sizes)
    latent = (batch, sizes.latent_channels, *3 * (side // sizes.downsampling,))

    def both(ct: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return autoencoder.encoder(ct), autoencoder.decoder(z)

    shapes: list[tuple[int, ...]] = [(batch, 1, side, side, side), latent]
    yield Trained("autoencoder", [autoencoder], both, shapes, recipe.autoencoder.training, True)
    prior = ProgressiveEncoder(changed(recipe.prior.sizes, quantiser=None))
    film = recipe.prior.sizes.film
    shapes = [(recipe.prior.training.micro_batch, 1, film, film)]
    yield Trained("prior", [prior], prior, shapes, recipe.prior.training, True)
    denoiser, batch = Denoiser(recipe.denoiser.sizes), recipe.denoiser.training.micro_batch
    depth = recipe.size // sizes.downsampling
    latent = (batch, recipe.denoiser.sizes.latent_channels, depth, depth, depth)
    shapes = [latent, (batch,), latent]
    yield Trained("denoiser", [denoiser], denoiser, shapes, recipe.denoiser.training, True)


def row(recipe: str, work: Trained) -> str:
    """One line of the table."""
    batch, kept = work.training.micro_batch, kept_for_backward(work)
    largest = [
        int(((1 - LEFT_FOR_THE_REST) * gb * GB - work.state) / (kept / batch)) for gb in GPUS_GB
    ]
    fitting = ["yes" if n >= batch else f"{n}" if n > 0 else "no" for n in largest]
    bytes_in_gb = [f"{work.state / GB:.2f}", f"{kept / batch / GB:.2f}"]
    cells = [recipe, work.name, *bytes_in_gb, f"{batch}", *fitting]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    sizes = " | ".join(f"{gb} GB" for gb in GPUS_GB)
    print(f"| recipe | training | state, GB | each sample, GB | `micro_batch` | {sizes} |")
    print("|---" * (5 + len(GPUS_GB)) + "|")
    for run in (small(), paper()):
        for work in (*generation(run), *segmentation(run)):
            print(row(run.name, work))


if __name__ == "__main__":
    main()
