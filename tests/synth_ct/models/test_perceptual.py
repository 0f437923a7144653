import hashlib
import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from synth_ct.kit.quarantine import Refused
from synth_ct.models import perceptual
from synth_ct.models.perceptual import (
    LAYERS,
    TRUNKS,
    TrunkName,
    demand_weights,
    perceptual_distance,
)


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def publish(trunk: TrunkName, state: object, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for the published file: its name is believed, as its sha256 confirms it."""
    path = folder / "unnamed"
    torch.save(state, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    named = path.rename(folder / f"{trunk}-{sha256[:8]}.pth")
    new = replace(TRUNKS[trunk], file=named.name)
    monkeypatch.setitem(perceptual.TRUNKS, trunk, new)
    return named


def random_state(trunk: TrunkName) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    layers = LAYERS[trunk]()
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)  # features of all depths differ between images
    state = {f"features.{name}": tensor for name, tensor in layers.state_dict().items()}
    return state | {"classifier.0.weight": torch.zeros(2, 2)}


@pytest.mark.parametrize("kind", ["none", "random"])
def test_what_needs_no_weights_asks_for_none(kind: perceptual.Perceptual) -> None:
    assert demand_weights(kind) is None


@pytest.mark.parametrize("trunk", TRUNKS)
def test_absent_weights_are_refused_at_once_naming_file_place_and_source(
    trunk: TrunkName, torch_home: Path
) -> None:
    name = TRUNKS[trunk].file
    with pytest.raises(ValueError, match="nothing is downloaded during a run") as caught:
        perceptual_distance("lpips", trunk)
    assert str(torch_home / name) in str(caught.value)
    assert f"https://download.pytorch.org/models/{name}" in str(caught.value)


def test_the_names_published_by_torchvision_are_ours() -> None:
    models = pytest.importorskip("torchvision.models")
    published = [models.VGG16_Weights.IMAGENET1K_V1.url, models.AlexNet_Weights.IMAGENET1K_V1.url]
    assert published == [perceptual.PUBLISHED + trunk.file for trunk in TRUNKS.values()]


@pytest.mark.parametrize("trunk", TRUNKS)
def test_lpips_agrees_with_the_package(
    trunk: TrunkName,
    torch_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = random_state(trunk)
    publish(trunk, state, torch_home, monkeypatch)
    ours = perceptual_distance("lpips", trunk)
    assert ours is not None
    assert capsys.readouterr().out == ""
    a, b = torch.rand(2, 2, 1, 64, 64) * 2 - 1
    assert ours(a, b).item() == pytest.approx(of_package(trunk, state, a, b), rel=1e-5)


def of_package(
    trunk: TrunkName, state: dict[str, torch.Tensor], a: torch.Tensor, b: torch.Tensor
) -> float:
    import lpips

    net = {"vgg16": "vgg", "alexnet": "alex"}[trunk]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monkey = pytest.MonkeyPatch()
        for name in ("normal_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_"):
            monkey.setattr(nn.init, name, lambda tensor, *_, **__: tensor)  # slow, and overwritten
        theirs = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        monkey.undo()
    modules = {k: m for part in theirs.net.children() for k, m in part.named_children()}
    for number, module in modules.items():
        if isinstance(module, nn.Conv2d):
            module.load_state_dict(
                {key: state[f"features.{number}.{key}"] for key in ("weight", "bias")}
            )
    with torch.no_grad():
        return float(theirs(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)).mean())


def test_all_is_finite_in_plain_air_and_the_trunk_stays_frozen(
    torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {k: v if v.ndim > 1 else v - 100 for k, v in random_state("alexnet").items()}
    publish("alexnet", state, torch_home, monkeypatch)  # biases so low that air fires nothing
    measure = perceptual_distance("lpips", "alexnet")
    assert measure is not None
    a = torch.full((1, 1, 64, 64), -1.0, requires_grad=True)
    b = torch.full((1, 1, 64, 64), -1.0)
    b[..., 32:] = 1.0
    distance = measure(a, b)
    distance.backward()
    assert distance.isfinite()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert all(not p.requires_grad for p in measure.parameters())


def test_other_weights_under_the_published_name_are_not_lpips(torch_home: Path) -> None:
    torch.save(random_state("alexnet"), torch_home / TRUNKS["alexnet"].file)
    with pytest.raises(Refused, match="not with 7be5be79"):
        perceptual_distance("lpips", "alexnet")


def test_a_file_elsewhere_is_used_where_it_is_named(
    tmp_path: Path, torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = publish("alexnet", random_state("alexnet"), tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="does not exist"):
        demand_weights("lpips", "alexnet")
    assert demand_weights("lpips", "alexnet", file) == file
    assert perceptual_distance("lpips", "alexnet", file) is not None


def test_missing_layers_are_named(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = random_state("alexnet")
    del state["features.3.bias"]
    publish("alexnet", state, torch_home, monkeypatch)
    with pytest.raises(Refused, match=r"features\.3\.bias is missing"):
        perceptual_distance("lpips", "alexnet")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("it ran",)


@pytest.mark.parametrize(
    "content", [pickle.dumps(Bomb(), 2), b"", b"nonsense", pickle.dumps([1], 2)]
)
def test_what_is_no_mapping_of_tensors_is_refused_and_never_run(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(content)
    with pytest.raises(Refused, match="E_CHECKPOINT_DAMAGED"):
        perceptual.load_tensors(file, "")
    file.unlink()
    torch.save({"a": Bomb()}, file)
    with pytest.raises(Refused, match="E_CHECKPOINT_DAMAGED"):
        perceptual.load_tensors(file, "")
    assert "it ran" not in capsys.readouterr().out


def test_the_random_measure_is_always_the_same_and_grows_with_the_difference() -> None:
    torch.manual_seed(1)
    one = perceptual_distance("random")
    torch.manual_seed(2)
    other = perceptual_distance("random")
    assert one is not None
    assert other is not None
    a = torch.rand(4, 1, 32, 32) * 2 - 1
    near, far = (one(a, a + noise * torch.randn_like(a)).item() for noise in (0.01, 0.3))
    assert one(a, a).item() == 0
    assert 0 < near < 0.1 * far
    assert torch.equal(one(a, a.flip(2)), other(a, a.flip(2)))
