"""An extractor is a local file with a name, or a refusal: never a download, never a stand-in."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import inception_v3
from torchvision.transforms.functional import normalize, resize

from synth_ct.evaluation.extractor import load_extractor, volume_features
from synth_ct.kit.quarantine import Refused

CPU = torch.device("cpu")


class Means(nn.Module):
    """The mean of each channel."""

    def forward(self, images_N3HW: Tensor) -> Tensor:
        return images_N3HW.mean((2, 3))


class OfBytes(nn.Module):
    """Features where they are asked for; of bytes, as the Inception of the original FID."""

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        assert img.dtype == torch.uint8
        assert return_features
        return img.float().amax((2, 3))


def scripted(module: nn.Module, file: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(file))
    return file


def test_torchscript_sees_grey_from_minus_one_to_one(tmp_path: Path) -> None:
    extractor = load_extractor(scripted(Means(), tmp_path / "means.pt"), CPU)
    assert extractor.name.startswith("means-")
    assert len(extractor.name) == len("means-") + 8
    volume = np.full((4, 6, 8), -1000, np.int16)
    volume[:, :, 4:] = 1500
    (features,) = volume_features(extractor, [volume], 2, CPU)
    assert features.shape == (2 + 3 + 4, 3)
    np.testing.assert_allclose(features[:5], 0, atol=1e-6)
    np.testing.assert_allclose(features[5:], np.array([-1, -1, 1, 1])[:, None].repeat(3, 1))


class Maps(nn.Module):
    """No features, but images again."""

    def forward(self, images_N3HW: Tensor) -> Tensor:
        return images_N3HW


class Narrow(nn.Module):
    """Takes images of eight channels."""

    def forward(self, images_N3HW: Tensor) -> Tensor:
        return images_N3HW.reshape(-1, 8, 999).mean(2)


def test_what_is_no_extractor_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(
        Refused, match=r"text.pt is not TorchScript.* - give an Inception file"
    ) as e:
        load_extractor(tmp_path / "text.pt", CPU)
    assert "\n" not in str(e.value)
    volume = np.zeros((4, 4, 4), np.int16)
    for module, said in ((Maps(), "one row of features"), (Narrow(), "fails on images")):
        extractor = load_extractor(scripted(module, tmp_path / "a.pt"), CPU)
        with pytest.raises(Refused, match=said) as e:
            volume_features(extractor, [volume], 1, CPU)
        assert "\n" not in str(e.value)


def test_the_original_inception_sees_bytes(tmp_path: Path) -> None:
    extractor = load_extractor(scripted(OfBytes(), tmp_path / "bytes.pt"), CPU)
    volume = np.full((2, 2, 2), 250, np.int16)
    (features,) = volume_features(extractor, [volume], 1, CPU)
    np.testing.assert_array_equal(features, np.full((6, 3), 128.0))


def test_torchvisions_inception_gives_2048_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = inception_v3(weights=None, init_weights=False)
    torch.save(network.state_dict(), tmp_path / "inception.pth")
    extractor = load_extractor(tmp_path / "inception.pth", CPU)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        both, alone = extractor.embed(images), extractor.embed(images[:1])
        network.fc = nn.Identity()
        enlarged = resize((images + 1) / 2, [299, 299], antialias=True)
        colours = normalize(enlarged, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        expected = network.eval()(colours)
    assert both.shape == (2, 2048)
    torch.testing.assert_close(both[:1], alone)
    torch.testing.assert_close(both, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().mean()))


def test_an_absent_file_and_a_foreign_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no feature extractor"):
        load_extractor(tmp_path / "inception.pt", CPU)
    torch.save({"weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not fit"):
        load_extractor(tmp_path / "other.pth", CPU)
