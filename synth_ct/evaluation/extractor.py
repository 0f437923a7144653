"""A network whose features FID and KID are measured in, read from a local file and named by it.

Three kinds of file are understood, told apart by what they are:

* `.pth`: torchvision's `inception_v3` weights; features after the last pooling.
* `.pt`, TorchScript whose `forward` takes `return_features`: the Inception of the original FID as
  StyleGAN's authors distribute it; bytes in, 2048 features out.
* `.pt`, any other TorchScript: grey repeated to three channels in [-1, 1] in, N x C features out.

Nothing is downloaded, and nothing stands in for a missing file.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional as F

from synth_ct.evaluation.slices import plane_slices
from synth_ct.kit.checkpoint import demand_fit
from synth_ct.kit.quarantine import Refused
from synth_ct.models.perceptual import load_tensors

Images = Float[Tensor, "n 3 h w"]
Embed = Callable[[Images], Float[Tensor, "n c"]]

REMEDY = "give an Inception file: .pt (TorchScript), or .pth (torchvision's inception_v3 weights)"
INCEPTION_SIDE = 299
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Extractor:
    """Images N3HW in [-1, 1] -> features, and the name under which its distances are published."""

    name: str
    """The file's stem and the first 8 digits of its sha256."""
    embed: Embed


def load_extractor(file: Path, device: torch.device) -> Extractor:
    """Read a network from a local file."""
    if not file.is_file():
        raise ValueError(
            f"there is no feature extractor at {file}, and FID and KID mean nothing without one; "
            f"{REMEDY}"
        )
    name = f"{file.stem}-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}"
    if file.suffix == ".pth":
        return Extractor(name, _torchvision_inception(file, device))
    return Extractor(name, _torchscript(file, device))


@torch.inference_mode()
def volume_features(
    extractor: Extractor, volumes: Iterable[ndarray], every: int, device: torch.device
) -> list[Float[ndarray, "n c"]]:
    """For each volume of HU the features of its slices in three planes, one in `every`."""
    rows = []
    for hu_XYZ in volumes:
        batches = [
            _features(extractor, grey.to(device).expand(-1, 3, -1, -1))
            for grey in plane_slices(hu_XYZ, every)
        ]
        rows.append(torch.cat(batches).double().cpu().numpy())
    return rows


def _features(extractor: Extractor, images_N3HW: Images) -> Tensor:
    """N x C, whatever the file holds."""
    try:
        features = extractor.embed(images_N3HW)
    except RuntimeError as error:
        last = str(error).strip().splitlines()[-1]
        _unusable(f"{extractor.name} fails on images {tuple(images_N3HW.shape)}: {last}")
    if not isinstance(features, Tensor) or features.shape[:-1] != images_N3HW.shape[:1]:
        _unusable(f"{extractor.name} does not give one row of features an image")
    return features


def _unusable(cause: str) -> NoReturn:
    raise Refused("E_CHECKPOINT_DAMAGED", f"{cause}, so FID and KID cannot be measured", REMEDY)


def _torchvision_inception(file: Path, device: torch.device) -> Embed:
    from torchvision.models import inception_v3

    network = inception_v3(weights=None, init_weights=False, transform_input=False)
    counters = "num_batches_tracked"  # of training, and not in every published file
    found, wanted = (
        {name: tensor for name, tensor in tensors.items() if not name.endswith(counters)}
        for tensors in (load_tensors(file, ""), network.state_dict())
    )
    demand_fit(found, wanted, file)
    network.load_state_dict(found, strict=False)
    network.fc = nn.Identity()
    network.eval().to(device)
    mean, sd = (torch.tensor(v, device=device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_SD))

    def embed(images_N3HW: Images) -> Tensor:
        return cast(Tensor, network(((_enlarged(images_N3HW) + 1) / 2 - mean) / sd))

    return embed


def _torchscript(file: Path, device: torch.device) -> Embed:
    with warnings.catch_warnings():  # the published Inception exists in this format alone
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            network = torch.jit.load(str(file), map_location=device).eval()
        except RuntimeError:  # many lines, on the inside of torch
            _unusable(f"{file} is not TorchScript")
    options = [argument.name for argument in network.forward.schema.arguments]
    if "return_features" not in options:
        return cast(Embed, network)

    def embed(images_N3HW: Images) -> Tensor:
        levels_N3HW = ((images_N3HW + 1) * 127.5).round().to(torch.uint8)
        return cast(Tensor, network(levels_N3HW, return_features=True))

    return embed


def _enlarged(images_N3HW: Images) -> Float[Tensor, "n 3 side side"]:
    side = (INCEPTION_SIDE, INCEPTION_SIDE)
    return F.interpolate(images_N3HW, side, mode="bilinear", align_corners=False, antialias=True)
