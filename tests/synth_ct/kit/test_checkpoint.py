"""Run as a program, this file is killed at every step of a save, and looks at what is left."""

import hashlib
import json
import os
import pickle
import random as dice
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from synth_ct.kit.checkpoint import (
    REST,
    SUMS,
    TENSORS,
    Checkpoints,
    load_weights,
    read,
    save_weights,
    write,
)
from synth_ct.kit.loop import Training, train
from synth_ct.kit.quarantine import Refused

RECIPE = Training(seed=0, steps=2, global_batch=2, micro_batch=2)
Damage = Callable[[Path, dice.Random], None]


class Fit:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules = {"net": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))}
        self.optimisers = {"fit": torch.optim.Adam(self.modules["net"].parameters())}
        self.averaged = ("net",)

    def losses(self, phase: str, batch: Tensor, random: torch.Generator, /) -> dict[str, Tensor]:
        return {"total": self.modules["net"](batch).square().mean()}


def resume(folder: Path) -> None:
    """Restore the finished run that lies in `folder`; it has no step left to take."""
    train(Fit(), no_batch, RECIPE, Checkpoints(folder=folder), lambda _, __: None)


def no_batch(step: int, slot: int) -> Tensor:
    raise AssertionError("a damaged checkpoint was silently replaced by training anew")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    torch.manual_seed(0)
    train(Fit(), lambda *_: torch.randn(2, 3), RECIPE, Checkpoints(folder=folder), lambda *_: None)
    resume(folder)
    return folder


# ---- damage ------------------------------------------------------------------------------------


def flip_a_bit(name: str) -> Damage:
    def damage(folder: Path, chance: dice.Random) -> None:
        data = bytearray((folder / name).read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        (folder / name).write_bytes(data)

    return damage


def truncate(name: str) -> Damage:
    def damage(folder: Path, chance: dice.Random) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: chance.randrange(len(data))])

    return damage


def remove(name: str) -> Damage:
    return lambda folder, _: (folder / name).unlink()


def sign(folder: Path) -> None:
    """Make the sums right again: only what the checkpoint says is wrong now."""
    names = (TENSORS, REST)
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    (folder / SUMS).write_text("".join(lines))


def with_tensors(change: Callable[[dict[str, Tensor], str], None]) -> Damage:
    def damage(folder: Path, chance: dice.Random) -> None:
        tensors = safetensors.torch.load((folder / TENSORS).read_bytes())
        floats = sorted(name for name, t in tensors.items() if t.is_floating_point())
        change(tensors, chance.choice(floats))
        (folder / TENSORS).write_bytes(safetensors.torch.save(tensors))
        sign(folder)

    return damage


def with_rest(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(folder: Path, _: dice.Random) -> None:
        rest = json.loads((folder / REST).read_text())
        (folder / REST).write_text(json.dumps(change(rest) or rest))
        sign(folder)

    return damage


def with_bytes(name: str, data: bytes) -> Damage:
    def damage(folder: Path, _: dice.Random) -> None:
        (folder / name).write_bytes(data)
        sign(folder)

    return damage


def a_torch_file(folder: Path, _: dice.Random) -> None:
    torch.save({"net": torch.zeros(3)}, folder / TENSORS)
    sign(folder)


def rename(tensors: dict[str, Tensor], name: str) -> None:
    tensors[f"{name}x"] = tensors.pop(name)


def huge_header() -> bytes:
    shape = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
    header = json.dumps({"modules/net/0.weight": shape}).encode()
    return len(header).to_bytes(8, "little") + header


DAMAGES: dict[str, Damage] = {
    **{f"a bit of {name} flipped": flip_a_bit(name) for name in (TENSORS, REST, SUMS)},
    **{f"{name} truncated": truncate(name) for name in (TENSORS, REST)},
    "tensors missing": remove(TENSORS),
    "rest missing": remove(REST),
    "a key renamed": with_tensors(rename),
    "a key dropped": with_tensors(dict.__delitem__),
    "a key added": with_tensors(lambda t, _: t.update({"modules/net/new": torch.zeros(1)})),
    "a module added": with_tensors(lambda t, _: t.update({"modules/other/w": torch.zeros(1)})),
    "a shape": with_tensors(lambda t, name: t.update({name: t[name][None]})),
    "a dtype": with_tensors(lambda t, name: t.update({name: t[name].double()})),
    "NaN": with_tensors(lambda t, name: t.update({name: t[name] * float("nan")})),
    "infinity": with_tensors(lambda t, name: t.update({name: t[name] + float("inf")})),
    "a pickle": with_bytes(TENSORS, pickle.dumps({"net": 1})),
    "a torch file": a_torch_file,
    "10^6 x 10^6": with_bytes(TENSORS, huge_header()),
    "a huge header": with_bytes(TENSORS, (2**62).to_bytes(8, "little") + b"{}"),
    "empty": with_bytes(TENSORS, b""),
    "not JSON": with_bytes(REST, b"{"),
    "a JSON list": with_bytes(REST, b"[]"),
    "bottomless JSON": with_bytes(REST, b"[" * 10**5),
    "no step": with_rest(lambda rest: rest.pop("step") and None),
    "another recipe": with_rest(lambda rest: rest["training"].update(seed=5)),
    "an optimiser gone": with_rest(lambda rest: rest.update(optimisers={})),
    "another optimiser": with_rest(lambda r: r["optimisers"]["fit"].update(kind="SGD")),
    "other betas": with_rest(lambda r: r["optimisers"]["fit"]["groups"][0].update(betas=[0, 0])),
    "moments of nobody": with_rest(lambda r: r["optimisers"]["fit"].update(moved=[99])),
    "no moments": with_rest(lambda r: r["optimisers"]["fit"].update(moved=[])),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_of_200_damaged_checkpoints_all_are_refused_with_file_and_cause(
    what: str, finished: Path, tmp_path: Path
) -> None:
    times = -(-200 // len(DAMAGES))
    for i in range(times):
        folder = Checkpoints(folder=tmp_path / str(i)).of(2)
        shutil.copytree(Checkpoints(folder=finished).of(2), folder)
        DAMAGES[what](folder, dice.Random(f"{what}{i}"))
        with pytest.raises(Refused) as refused:
            resume(folder.parent)
        assert str(folder) in refused.value.cause
        assert len(refused.value.cause) > len(str(folder)) + 10
        assert refused.value.remedy


def test_the_damaged_file_of_a_checkpoint_is_named(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "step"
    shutil.copytree(Checkpoints(folder=finished).of(2), folder)
    flip_a_bit(TENSORS)(folder, dice.Random(0))
    with pytest.raises(Refused, match=f"{TENSORS} cannot be trusted: its sha256"):
        read(folder)


def test_opening_a_pickle_never_runs_it(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    for name in ("weights.safetensors", "model.pt", "last.ckpt"):
        (tmp_path / name).write_bytes(pickle.dumps(Planted()))
        with pytest.raises(Refused, match="weights_only=True") as refused:
            load_weights(tmp_path / name, nn.Linear(1, 1))
        assert refused.value.code == "E_PICKLE"
    assert not (tmp_path / "ran").exists()


# ---- round trips -------------------------------------------------------------------------------


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    tensors = {
        "half": torch.tensor([1.5, -2.0]).bfloat16(),
        "count": torch.tensor(7),
        "strided": torch.arange(6.0).reshape(2, 3).T,
        "empty": torch.zeros(0, 3),
    }
    tied = torch.ones(2)
    tensors |= {"tied": tied, "to": tied}
    write(tmp_path / "c", tensors, {"rate": 0.1, "deep": {"list": [1, 2]}})
    saved = read(tmp_path / "c")
    assert saved.rest == {"rate": 0.1, "deep": {"list": [1, 2]}}
    assert saved.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert saved.tensors[name].dtype == tensor.dtype
        assert torch.equal(saved.tensors[name], tensor)


def test_the_sums_are_what_sha256sum_understands(finished: Path) -> None:
    folder = Checkpoints(folder=finished).of(2)
    checked = subprocess.run(
        ["sha256sum", "-c", SUMS], cwd=folder, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_equal_states_give_equal_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3)}
    write(tmp_path / "one", tensors, {"step": 1})
    write(tmp_path / "two", tensors, {"step": 1})
    assert (tmp_path / "one" / SUMS).read_text() == (tmp_path / "two" / SUMS).read_text()


def test_nothing_that_is_not_finite_is_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="NaN or infinity in bad"):
        write(tmp_path / "c", {"bad": torch.tensor([float("nan")])}, {})
    assert not (tmp_path / "c").exists()


# ---- weights -----------------------------------------------------------------------------------


def test_weights_come_back_by_recorded_sum_or_by_the_one_beside_them(tmp_path: Path) -> None:
    made, path = nn.Linear(3, 2), tmp_path / "weights.safetensors"
    sha256 = save_weights(path, made.state_dict())
    for recorded in (sha256, None):
        fresh = nn.Linear(3, 2)
        load_weights(path, fresh, recorded)
        assert torch.equal(fresh.weight, made.weight)
    with pytest.raises(Refused, match="another was recorded"):
        load_weights(path, nn.Linear(3, 2), "0" * 64)
    path.with_name("weights.safetensors.sha256").unlink()
    with pytest.raises(Refused, match="cannot be read"):
        load_weights(path, nn.Linear(3, 2))


def test_a_model_of_another_shape_is_told_every_difference(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, {"weight": torch.zeros(2, 3), "bais": torch.zeros(2)})
    model = nn.Linear(4, 2)
    before = model.weight.detach().clone()
    with pytest.raises(Refused) as refused:
        load_weights(path, model)
    for text in (str(path), "bias is missing", "bais is not known", "float32[2, 3] instead of"):
        assert text in refused.value.cause
    assert torch.equal(model.weight, before)


# ---- keeping -----------------------------------------------------------------------------------


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    kept = Checkpoints(folder=tmp_path, keep=3)
    for step in range(1, 8):
        kept.save(step, {"w": torch.tensor([float(step)])}, {})
    assert kept.steps() == [5, 6, 7]
    newest = kept.newest_good()
    assert newest is not None
    assert newest.tensors["w"].item() == 7


def test_a_save_drops_what_is_half_written_or_from_a_future_that_was_refused(
    tmp_path: Path,
) -> None:
    kept = Checkpoints(folder=tmp_path)
    for step in (10, 20):
        kept.save(step, {}, {})
    (kept.of(20) / REST).unlink()
    kept.of(12).mkdir()
    kept.save(15, {}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]


def test_before_the_first_save_there_is_none(tmp_path: Path) -> None:
    assert Checkpoints(folder=tmp_path / "not yet").newest_good() is None


def test_keeping_one_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Checkpoints(folder=tmp_path, keep=1)


def test_a_kill_at_any_moment_of_a_save_leaves_only_good_checkpoints(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15


# ---- the program -------------------------------------------------------------------------------


CHANGES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}


def save_killed_at(moment: int, kept: Checkpoints) -> int:
    """Save in a child that dies at its n-th change to the disk; return how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    changes = 0

    def hook(event: str, _: tuple[Any, ...]) -> None:
        nonlocal changes
        if event not in CHANGES:
            return
        changes += 1
        if changes == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    kept.save(3, {"w": torch.full((9,), 3.0)}, {"step": 3})
    os._exit(0)


def program(folder: Path) -> int:
    """Kill a save at every moment in turn; return how many there were."""
    moment, ended = 0, -signal.SIGKILL
    while ended == -signal.SIGKILL:
        moment += 1
        kept = Checkpoints(folder=folder / str(moment))
        for step in (1, 2, 3):
            kept.save(step, {"w": torch.full((9,), float(step))}, {"step": step})
        ended = save_killed_at(moment, kept)
        left = max((read(kept.of(step)) for step in kept.steps()), key=lambda c: c.where)
        assert left.rest["step"] in (2, 3), moment
        assert (left.tensors["w"] == left.rest["step"]).all(), moment
        kept.save(4, {}, {})
        assert kept.steps()[-1] == 4, moment
    assert ended == 0, ended
    return moment


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(str(program(Path(sys.argv[1]))))
