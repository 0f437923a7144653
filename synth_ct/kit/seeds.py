"""One root seed, and a name for every other."""

import hashlib

import numpy as np
import torch


def seed_for(root: int, purpose: str, index: int | str = 0) -> int:
    """Derive an independent 63-bit seed for a named purpose.

    >>> seed_for(0, "volume", 7) == seed_for(0, "volume", 7)
    True
    >>> seed_for(0, "volume", 7) == seed_for(0, "split", 7)
    False
    """
    text = f"{root}/{purpose}/{index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_random(root: int, purpose: str, index: int | str = 0) -> np.random.Generator:
    """A numpy generator for a named purpose."""
    return np.random.default_rng(seed_for(root, purpose, index))


def torch_random(root: int, purpose: str, index: int | str = 0) -> torch.Generator:
    """A CPU torch generator for a named purpose."""
    return torch.Generator().manual_seed(seed_for(root, purpose, index))
