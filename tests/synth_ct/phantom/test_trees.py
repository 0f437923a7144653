import numpy as np

from synth_ct.phantom.trees import grow


def test_a_tree_reaches_every_target_and_tapers_by_murrays_law(rng: np.random.Generator) -> None:
    targets = rng.uniform(10, 60, (80, 3))
    tree = grow(np.array([[0.0, 0, 0], [5.0, 5, 5]]), targets, 8.0)
    assert all((np.abs(tree.nodes - target).max(axis=1) < 1e-9).any() for target in targets)
    assert (tree.parents[1:] < np.arange(1, len(tree.nodes))).all()
    assert tree.radii[0] == 8.0
    cubes = np.bincount(tree.parents[1:], tree.radii[1:] ** 3, len(tree.nodes))
    forks = np.bincount(tree.parents[1:], minlength=len(tree.nodes)) > 0
    assert np.allclose(cubes[forks], tree.radii[forks] ** 3)
