"""How differently two images look to a convolutional network.

    d(a, b) = sum_l mean_hw sum_c w_lc (f_l(a) / |f_l(a)| - f_l(b) / |f_l(b)|)_c^2

`lpips`: f of a VGG16 or AlexNet trained on ImageNet, w from the `lpips` package (version 0.1).
Its file of weights is never fetched during a run: where it is absent, that is said at once.
`random`: f of a small fixed random network, w = 1. It is another measure and never called LPIPS.
"""

import hashlib
import importlib.util
import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, NoReturn

import torch
from torch import Tensor, nn

from synth_ct.kit.checkpoint import demand_fit
from synth_ct.kit.quarantine import Refused

Perceptual = Literal["none", "random", "lpips"]
TrunkName = Literal["vgg16", "alexnet"]

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation of red, green and blue, of images in [-1, 1]."""

EPSILON = 1e-6
"""Keeps |f| differentiable where no feature fires, as in the plain air around a body."""

MAX_BYTES = 2**30
"""More than any of the files; a larger one is not read into memory."""


@dataclass(frozen=True, slots=True)
class Trunk:
    """A network whose features LPIPS compares."""

    file: str
    """The name torchvision publishes its weights under; the end is how their sha256 begins."""
    layer_weights: str
    """The file of the lpips package that weighs the features."""
    taps: tuple[int, ...]
    """The layers whose outputs are compared."""
    channels: tuple[int, ...]
    """Channels of each."""
    used_by: str
    instead: str
    """What to do without."""

    @property
    def sha256_begins(self) -> str:
        """The first digits of the sha256 of the file."""
        return self.file.removesuffix(".pth").rpartition("-")[2]


TRUNKS: dict[TrunkName, Trunk] = {
    "vgg16": Trunk(
        "vgg16-397923af.pth", "vgg.pth", (3, 8, 15, 22, 29), (64, 128, 256, 512, 512),
        used_by="trainings with LPIPS, as in recipe `paper`",
        instead='choose perceptual = "random" or "none"',
    ),
    "alexnet": Trunk(
        "alexnet-owt-7be5be79.pth", "alex.pth", (1, 4, 7, 9, 11), (64, 192, 384, 256, 256),
        used_by="the LPIPS columns of `synth-ct evaluate`",
        instead="read the tables without LPIPS",
    ),
}  # fmt: skip
PUBLISHED = "https://download.pytorch.org/models/"


def perceptual_distance(
    kind: Perceptual, trunk: TrunkName = "vgg16", file: Path | None = None
) -> nn.Module | None:
    """The measure asked for, frozen; None for `none`."""
    if kind == "none":
        return None
    weights = demand_weights(kind, trunk, file)
    measure = RandomFeatureDistance() if weights is None else LpipsDistance(trunk, weights)
    return measure.requires_grad_(False)


def demand_weights(
    kind: Perceptual, trunk: TrunkName = "vgg16", file: Path | None = None
) -> Path | None:
    """Where the trunk's weights lie, None where none are needed; raise if they are absent."""
    if kind != "lpips":
        return None
    name = TRUNKS[trunk].file
    path = file or Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        raise ValueError(
            f"LPIPS compares features of a trained {trunk}, but {path} does not exist and nothing "
            f"is downloaded during a run; fetch {PUBLISHED}{name} and put it there, or "
            f"{TRUNKS[trunk].instead}"
        )
    return path


# ---- the features ------------------------------------------------------------------------------


def vgg16_layers() -> nn.Sequential:
    """Pairs and triples of 3-wide convolutions, halving between; numbered as in the file."""
    layers: list[nn.Module] = []
    channels = 3
    for width, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers[:-1])


def alexnet_layers() -> nn.Sequential:
    """Five convolutions, halving after the first two; numbered as in the file."""
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    )


LAYERS = {"vgg16": vgg16_layers, "alexnet": alexnet_layers}


def features_of(layers: nn.Sequential, taps: Sequence[int], x_NCHW: Tensor) -> list[Tensor]:
    """The outputs of the tapped layers, each of length 1 at every pixel: f / |f|."""
    features = []
    for number, layer in enumerate(layers):
        x_NCHW = layer(x_NCHW)
        if number in taps:
            features.append(unit_length(x_NCHW.float()))
    return features


def unit_length(f_NCHW: Tensor) -> Tensor:
    """f / sqrt(|f|^2 + eps^2), over channels."""
    return f_NCHW * torch.rsqrt(f_NCHW.square().sum(1, keepdim=True) + EPSILON**2)


def feature_distance(
    a: Sequence[Tensor], b: Sequence[Tensor], weights_C: Sequence[Tensor]
) -> Tensor:
    """sum_l mean_nhw sum_c w_lc (a_l - b_l)_c^2."""
    layers = zip(a, b, weights_C, strict=True)
    return torch.stack(
        [torch.einsum("nchw,c->nhw", (x - y).square(), w_C).mean() for x, y, w_C in layers]
    ).sum()


class LpipsDistance(nn.Module):
    """LPIPS of grey images in [-1, 1]."""

    def __init__(self, trunk: TrunkName, file: Path) -> None:
        super().__init__()
        self.trunk = TRUNKS[trunk]
        self.layers = LAYERS[trunk]()
        fill_trunk(self.layers, self.trunk, file)
        for number, weights_C in enumerate(layer_weights(self.trunk)):
            self.register_buffer(f"weights{number}_C", weights_C)
        self.register_buffer("shift_C11", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale_C11", torch.tensor(SCALE)[:, None, None])

    def forward(self, a_N1HW: Tensor, b_N1HW: Tensor) -> Tensor:
        """Mean over the images."""
        a, b = (
            features_of(self.layers, self.trunk.taps, self._colour(x)) for x in (a_N1HW, b_N1HW)
        )
        weights_C = [self.get_buffer(f"weights{number}_C") for number in range(len(a))]
        return feature_distance(a, b, weights_C)

    def _colour(self, x_N1HW: Tensor) -> Tensor:
        """(x - shift) / scale of three equal colours."""
        shift_C11, scale_C11 = self.get_buffer("shift_C11"), self.get_buffer("scale_C11")
        return (x_N1HW - shift_C11) / scale_C11


class RandomFeatureDistance(nn.Module):
    """Distance of the features of a small network whose random weights are always the same."""

    TAPS = (1, 3, 5)

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32, 64)
        generator = torch.Generator().manual_seed(0)
        layers: list[nn.Module] = []
        for ins, outs in pairwise(widths):
            convolution = nn.utils.skip_init(nn.Conv2d, ins, outs, 3, stride=2, padding=1)
            nn.init.kaiming_normal_(convolution.weight, generator=generator)
            nn.init.zeros_(convolution.bias)
            layers += [convolution, nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, a_N1HW: Tensor, b_N1HW: Tensor) -> Tensor:
        """Mean over the images."""
        a, b = (features_of(self.layers, self.TAPS, x) for x in (a_N1HW, b_N1HW))
        return feature_distance(a, b, [x.new_ones(x.shape[1]) for x in a])


# ---- the files ---------------------------------------------------------------------------------


def fill_trunk(layers: nn.Sequential, trunk: Trunk, file: Path) -> None:
    """Fill the trunk with the published weights, and no others: only with them is it LPIPS."""
    found = load_tensors(file, trunk.sha256_begins)
    own = {k: tensor for k, tensor in found.items() if not k.startswith("classifier.")}
    wanted = {f"features.{name}": tensor for name, tensor in layers.state_dict().items()}
    demand_fit(own, wanted, file)
    layers.load_state_dict({k.removeprefix("features."): tensor for k, tensor in own.items()})


def layer_weights(trunk: Trunk) -> list[Tensor]:
    """How much each channel counts, as fitted to what people see; from the lpips package."""
    package = importlib.util.find_spec("lpips")
    if package is None or package.origin is None:
        raise ValueError(
            "LPIPS takes the weights of its layers from the package lpips, which is not installed; "
            'install it, or choose perceptual = "random" or "none"'
        )
    file = Path(package.origin).parent / "weights" / "v0.1" / trunk.layer_weights
    found = load_tensors(file, "")
    names = [f"lin{number}.model.1.weight" for number in range(len(trunk.channels))]
    wanted = {n: torch.empty(1, c, 1, 1) for n, c in zip(names, trunk.channels, strict=True)}
    demand_fit(found, wanted, file)
    return [found[name].flatten() for name in names]


def load_tensors(file: Path, sha256_begins: str) -> dict[str, Tensor]:
    """Tensors of a published pickle: only if its sha256 begins as it should, and only tensors."""
    if file.stat().st_size > MAX_BYTES:
        _damaged(file, f"it is larger than {MAX_BYTES} bytes")
    data = file.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if not sha256.startswith(sha256_begins):
        _damaged(file, f"its sha256 begins with {sha256[:8]}, not with {sha256_begins}")
    try:
        # weights_only builds tensors and containers and runs nothing else that the pickle says.
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        _damaged(file, f"no tensors can be read from it: {error!r:.200}")
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        _damaged(file, "it holds other things than tensors by name")
    return found


def _damaged(file: Path, cause: str) -> NoReturn:
    raise Refused("E_CHECKPOINT_DAMAGED", f"{file} cannot be trusted: {cause}", "fetch it again")
