import subprocess
import sys

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from synth_ct.kit.seeds import numpy_random, seed_for, torch_random

NAMES = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), max_size=8)


@given(st.integers(), NAMES, st.integers() | NAMES)
def test_a_seed_fits_every_generator(root: int, purpose: str, index: int | str) -> None:
    seed = seed_for(root, purpose, index)
    assert 0 <= seed < 2**63
    assert seed == seed_for(root, purpose, index)


def test_root_purpose_and_index_each_change_the_seed() -> None:
    seeds = {
        seed_for(root, purpose, index)
        for root in range(10)
        for purpose in ("volume", "split", "noise")
        for index in range(100)
    }
    assert len(seeds) == 10 * 3 * 100


def test_seeds_are_the_same_in_every_process_and_version() -> None:
    code = "from synth_ct.kit.seeds import seed_for; print(seed_for(3, 'volume', 'ab12'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == seed_for(3, "volume", "ab12") == 299617954540857338


def test_generators_begin_at_their_seed() -> None:
    seed = seed_for(1, "x", 2)
    expected = torch.rand(3, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(torch.rand(3, generator=torch_random(1, "x", 2)), expected)
    assert numpy_random(1, "x", 2).random() == np.random.default_rng(seed).random()


def test_neighbouring_seeds_give_unrelated_numbers() -> None:
    draws = np.stack([numpy_random(0, "volume", i).standard_normal(4000) for i in range(20)])
    correlation = np.corrcoef(draws) - np.eye(20)
    assert np.abs(correlation).max() < 0.08
