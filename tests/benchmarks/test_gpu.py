"""The device's benchmark runs where little is installed, and its floors are those of the text."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from floors import Ceiling, Kernel, counted, floors  # noqa: E402

BARE_BOX = """
import re, runpy, sys
from importlib import metadata
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

HAS = ["torch", "numpy", "monai", "einops", "nibabel", "pydantic", "safetensors", "isal"]

def needs(name, found):
    name = re.split(r"[^A-Za-z0-9._-]", name)[0].lower().replace("_", "-")
    if name in found:
        return
    found.add(name)
    try:
        wanted = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for line in wanted:
        if "extra ==" not in line:
            needs(line, found)

found = set()
for name in HAS:
    needs(name, found)
absent = {
    module
    for module, packages in metadata.packages_distributions().items()
    if not {package.lower().replace("_", "-") for package in packages} & found
} - {"synth_ct", "__pycache__"}
assert {"scipy", "jaxtyping", "ray", "mlflow", "pydicom", "PIL", "torchvision", "lpips"} <= absent

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        known = name.partition(".")[0] not in absent
        return PathFinder.find_spec(name, path, target) if known else None

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Bare]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_bare_box_is_enough(tmp_path: Path) -> None:
    script = str(ROOT / "benchmarks" / "gpu.py")
    asked = [script, "--size", "tiny", "--device", "cpu", "--out", str(tmp_path)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    done = subprocess.run(
        [sys.executable, "-c", BARE_BOX, *asked],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    tables = {
        table["title"]: table for table in json.loads((tmp_path / "gpu.json").read_text())["tables"]
    }
    assert len(tables) == 7
    assert not [t for t in tables.values() if t["columns"][0] in ("failed", "not run")]
    verdicts = {row[0]: row[2] for row in tables["bfloat16 against float32"]["rows"]}
    assert set(verdicts.values()) == {"rounding"}
    assert all(row[-3] > 0 for row in tables["Volumes a second, end to end"]["rows"])
    assert "## Training" in (tmp_path / "gpu.md").read_text()


# ---- floors ------------------------------------------------------------------------------------


def test_a_convolution_is_counted_and_a_view_is_not() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten())
    (kernel,) = counted(net, (2, 3, 8, 8))
    assert kernel.flop == 2 * (2 * 5 * 8 * 8) * 3 * 9
    assert kernel.moved == 2 * (2 * 3 * 64 + 2 * 5 * 64 + 5 * 3 * 9 + 5)
    assert next(net.parameters()).device.type == "cpu"


class Attend(nn.Module):
    """Attention to oneself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return scaled_dot_product_attention(x, x, x)


def test_attention_is_one_kernel() -> None:
    (kernel,) = counted(Attend(), (2, 4, 16, 8))
    assert kernel.flop == 2 * 2 * 2 * 4 * 16 * 16 * 8
    assert kernel.moved == 2 * 4 * (2 * 4 * 16 * 8)


def test_a_kernel_takes_as_long_as_its_work_or_its_bytes() -> None:
    busy, idle, copy = Kernel("mm", 2000, 10), Kernel("mm", 10, 300), Kernel("copy", 0, 500)
    floor = floors([busy, idle, copy], Ceiling(flop_per_s=1000.0, bytes_per_s=100.0))
    assert floor == pytest.approx((2010.0, 5000.0, 10000.0))
