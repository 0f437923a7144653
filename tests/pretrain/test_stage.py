"""From corpora to an encoder: the same for the same recipe, resumed or not, whatever the arm."""

import json
from pathlib import Path

import pytest
import torch
from corpora import make_corpus

from pretrain.alarms import Alarms
from pretrain.arms import Arm
from pretrain.backbones import UNetSizes, build
from pretrain.crops import Ahead
from pretrain.encoder import Encoder
from pretrain.objectives import out_channels
from pretrain.objectives.mae import MaeRecipe
from pretrain.objectives.swin3 import Swin3Recipe
from pretrain.stage import Network, PretrainRecipe, pretrain_stage
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.effort import Effort
from synth_ct.kit.loop import Training
from synth_ct.kit.recipe import changed

SPACING = (20.0, 20.0, 20.0)
NETWORK = Network(
    backbone=UNetSizes(width=2, levels=2, norm="instance"),
    objective=MaeRecipe(),
    transfer="all_but_head",
    crop=(16, 16, 16),
    probe_crops=6,
    rate=1e-2,
    training=Training(seed=0, steps=4, global_batch=2, micro_batch=2, average_decay=0.0),
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two corpora, to be read."""
    folder = tmp_path_factory.mktemp("corpora")
    for name, numbers in (("synthetic", range(40)), ("real", range(100, 140))):
        make_corpus(folder / name, numbers, patients=40)
    return {f"corpus/{name}": folder / name for name in ("synthetic", "real")}


def made(arm: Arm, out: Path, inputs: dict[str, Path], **changes: object) -> Encoder:
    fields = {"network": NETWORK, "arm": arm, "evidence": "plumbing", "spacing_mm": SPACING}
    recipe = PretrainRecipe(**(fields | {"volumes": 8} | changes))  # type: ignore[arg-type]
    record = Record(kind=f"encoder/{out.name}", recipe=recipe.model_dump(mode="json"))
    with publish(out, record) as workspace:
        pretrain_stage(recipe, workspace, inputs, Effort())
    return Encoder.open(out)


def receiver() -> torch.nn.Module:
    return build(NETWORK.backbone, out_channels(NETWORK.objective), 99)


@pytest.mark.parametrize("arm", ["scratch", "primitives", "synthetic", "real", "mixed"])
def test_every_arm_ends_in_an_encoder_that_loads(
    arm: Arm, inputs: dict[str, Path], tmp_path: Path
) -> None:
    encoder = made(arm, tmp_path / "out", inputs)
    assert encoder.adaptation.arm == arm
    assert encoder.adaptation.steps == (0 if arm == "scratch" else 4)
    assert encoder.load_into(receiver()).tensors > 0  # type: ignore[arg-type]
    asked = json.loads((tmp_path / "out" / "probe.json").read_text())
    told = {"untrained", "trained", "gain"}
    assert set(asked) == (told if arm in {"synthetic", "real", "mixed"} else set())


def test_arms_differ_in_their_volumes_alone(inputs: dict[str, Path], tmp_path: Path) -> None:
    """The same initial weights and the same crops' places, so a gap is the corpus' alone."""
    arms: tuple[Arm, ...] = ("synthetic", "real", "primitives")
    encoders = [made(arm, tmp_path / arm, inputs).adaptation for arm in arms]
    same = [e.model_dump(exclude={"arm", "corpora", "input"}) for e in encoders]
    assert same[0] == same[1] == same[2]


def test_equal_recipes_give_equal_weights(inputs: dict[str, Path], tmp_path: Path) -> None:
    one, two = (made("synthetic", tmp_path / name, inputs).tensors for name in "ab")
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_scratch_has_initial_weights_of_its_own(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Under the receiver's seed nothing could be seen to arrive."""
    scratch = made("scratch", tmp_path / "s", inputs).tensors
    untouched = build(NETWORK.backbone, 1, 0).state_dict()
    assert not all(torch.equal(scratch[key], untouched[key]) for key in scratch)


def test_a_corpus_on_another_grid_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"spacing of \(20\.0"):
        made("synthetic", tmp_path / "out", inputs, spacing_mm=(2.5, 2.5, 2.5))


def test_primitives_must_be_counted(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set volumes"):
        made("primitives", tmp_path / "out", inputs, volumes=None)


def test_an_untrained_decoder_is_not_transferred() -> None:
    with pytest.raises(ValueError, match="transfer must be 'encoder'"):
        Network(
            backbone=NETWORK.backbone,
            objective=Swin3Recipe(),
            transfer="all_but_head",
            training=NETWORK.training,
        )


def test_reading_ahead_changes_nothing() -> None:
    asked: list[int] = []

    def read(k: int) -> torch.Tensor:
        asked.append(k)
        return torch.full((1, 2, 2, 2), float(k))

    training = Training(seed=0, steps=2, global_batch=4, micro_batch=2)
    batches = Ahead(read, training, range(2), torch.device("cpu"))
    firsts = [batches(step, slot)[:, 0, 0, 0, 0].tolist() for step in range(2) for slot in range(2)]
    again = batches(0, 1)[:, 0, 0, 0, 0].tolist()
    batches.close()
    assert firsts == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert again == [2, 3]


def test_each_process_reads_ahead_what_is_its_own() -> None:
    asked: list[int] = []

    def read(k: int) -> torch.Tensor:
        asked.append(k)
        return torch.zeros(1, 2, 2, 2)

    training = Training(seed=0, steps=2, global_batch=6, micro_batch=1)
    batches = Ahead(read, training, range(2, 4), torch.device("cpu"))
    for step, slot in ((0, 2), (0, 3), (1, 2), (1, 3)):
        batches(step, slot)
    batches.close()
    assert asked[:4] == [2, 3, 8, 9]
    assert set(asked[4:]) <= {14}


def test_an_arm_with_too_few_volumes_is_refused_instead_of_seeing_fewer(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"has \d+ training volumes, and every arm is to see 60"):
        made("synthetic", tmp_path / "out", inputs, volumes=60)


def test_a_window_of_its_own_reaches_the_network_and_the_record(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    soft = changed(NETWORK, window_hu=(-175.0, 250.0))
    encoder = made("real", tmp_path / "soft", inputs, network=soft)
    assert encoder.adaptation.input.window_hu == (-175.0, 250.0)
    wide = made("real", tmp_path / "wide", inputs)
    assert any((encoder.tensors[k] != wide.tensors[k]).any() for k in wide.tensors)


def test_a_batch_of_one_is_not_taken_for_a_collapse(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    training = changed(NETWORK.training, global_batch=1, micro_batch=1)
    network = changed(NETWORK, training=training, alarms=Alarms(after=1, over=1))
    made("real", tmp_path / "out", inputs, network=network)
