"""Branching trees that fill a volume: vessels and airways of the lung.

Targets are joined to the tree from the hilum outwards, each to the node that makes the shortest way
back; radii follow Murray's law, r^3 = sum of the children's r^3.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

Nodes = Float[np.ndarray, "_ 3"]
Node = Float[np.ndarray, "3"]
Parents = Int[np.ndarray, " _"]
Radii = Float[np.ndarray, " _"]


@dataclass(frozen=True, slots=True)
class Tree:
    """Nodes in growing order; each but the first is joined to an earlier one."""

    nodes: Nodes
    parents: Parents
    radii: Radii


def grow(root: Nodes, targets: Nodes, root_radius: float) -> Tree:
    """Join each target t to argmin_n |t - n| + 0.45 path(n), then add a node halfway to it.

    The halfway node lets later targets branch off between; `root` is a path to start from.
    """
    nodes, parents, paths = _trunk(root)
    order = np.argsort(((targets - root[-1]) ** 2).sum(1), kind="stable")
    for target in targets[order]:
        known = np.array(nodes)
        away = np.sqrt(((known - target) ** 2).sum(1))
        parent = int(np.argmin(away + 0.45 * np.array(paths)))
        middle = 0.5 * (known[parent] + target)
        for point, link in ((middle, parent), (target, len(nodes))):
            paths.append(paths[link] + float(np.sqrt(((point - nodes[link]) ** 2).sum())))
            nodes.append(point)
            parents.append(link)
    return _with_radii(np.array(nodes), np.array(parents), root_radius)


def _trunk(root: Nodes) -> tuple[list[Node], list[int], list[float]]:
    paths = [0.0]
    for start, stop in pairwise(root):
        paths.append(paths[-1] + float(np.sqrt(((stop - start) ** 2).sum())))
    return list(root), [max(0, n - 1) for n in range(len(root))], paths


def _with_radii(nodes: Nodes, parents: Parents, root_radius: float) -> Tree:
    """Leaves carry one unit of flow; r = r_root (flow / flow_root)^(1/3)."""
    has_child = np.zeros(len(nodes), bool)
    has_child[parents[1:]] = True
    flow = np.where(has_child, 0.0, 1.0)
    for node in range(len(nodes) - 1, 0, -1):
        flow[parents[node]] += flow[node]
    return Tree(nodes, parents, root_radius * np.cbrt(flow / flow[0]))
