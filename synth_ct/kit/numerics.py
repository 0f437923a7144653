"""Within what limits two runs may promise the same bits."""

import json
import platform
from collections.abc import Mapping

import numpy as np
import torch

from synth_ct.kit.durable import sha256_of


def numerics(device: str = "cpu") -> dict[str, str]:
    """Everything outside the recipe that can change the last bit of a result."""
    facts = {
        "device": device,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    if device.startswith("cuda"):
        facts["device"] = torch.cuda.get_device_name()
        facts["cudnn"] = str(torch.backends.cudnn.version())
    return facts


def fingerprint_of(facts: Mapping[str, str]) -> str:
    """Sixteen digits: equal where two runs may promise the same bits."""
    return sha256_of(json.dumps(dict(facts), sort_keys=True).encode())[:16]


def device() -> str:
    """Where networks run on this machine. What must not run on a CPU says so by itself."""
    return "cuda" if torch.cuda.is_available() else "cpu"
