"""Distances between two sets of images in the features of a named network: FID and KID.

One number judges a whole set. FID (Heusel et al. 2017) is biased by how many images there are, so
it is only comparable at equal numbers and has no interval here; KID (Binkowski et al. 2018) is
unbiased, and its interval is the jackknife's over patients. Both mean nothing without the name of
the extractor, which is why `extractor.Extractor` carries one.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

from synth_ct.kit.statistics import LEVEL, Estimate

Features = Float[ndarray, "n c"]
Others = Float[ndarray, "m c"]


class KernelDistance(NamedTuple):
    """KID, and its interval over patients."""

    mean: float
    error: float
    lo: float
    hi: float


def set_distances(
    made: list[ndarray], truth: list[ndarray], patients: list[str]
) -> dict[str, Estimate]:
    """FID and KID of the features of all volumes, in the order of `patients`, as a row tells them.

    Features of the truth are the same for every system: take them once.
    """
    owners = [
        [p for p, rows in zip(patients, of, strict=True) for _ in rows] for of in (made, truth)
    ]
    made_NC, truth_MC = np.concatenate(made), np.concatenate(truth)
    kid = kernel_distance(made_NC, truth_MC, *owners)
    fid = Estimate(frechet_distance(made_NC, truth_MC))
    return {"fid": fid, "kid": Estimate(kid.mean, lo=kid.lo, hi=kid.hi)}


def frechet_distance(a_NC: Features, b_MC: Others) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)).

    With S = R^T R the last trace is the sum of the singular values of R_a R_b^T: no matrix root,
    and no imaginary rounding where there are fewer images than features.
    """
    apart = ((a_NC.mean(0) - b_MC.mean(0)) ** 2).sum()
    root_a, root_b = _root(a_NC), _root(b_MC)
    shared = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return float(apart + (root_a**2).sum() + (root_b**2).sum() - 2 * shared)


def kernel_distance(
    a_NC: Features, b_MC: Others, a_patients: list[str], b_patients: list[str]
) -> KernelDistance:
    """KID = mean k(a, a') + mean k(b, b') - 2 mean k(a, b), k(x, y) = (x . y / C + 1)^3.

    No image is compared with itself, which makes it unbiased. The interval leaves one patient out
    at a time, from both sets where both show that patient.
    """
    fewest = min(len(set(a_patients)), len(set(b_patients)))
    if fewest < 3:
        raise ValueError(
            f"a set of {fewest} patients gives KID no interval; evaluate three or more"
        )
    names = sorted({*a_patients, *b_patients})
    of_a, of_b = _members(a_patients, names), _members(b_patients, names)
    sums = [
        _kernel_sums(a_NC, a_NC, of_a, of_a, itself=True),
        _kernel_sums(b_MC, b_MC, of_b, of_b, itself=True),
        _kernel_sums(a_NC, b_MC, of_a, of_b, itself=False),
    ]
    everyone = np.arange(len(names))
    mean = _estimate(sums, everyone)
    left_out = np.array([_estimate(sums, np.delete(everyone, p)) for p in everyone])
    count = len(names)
    error = float(np.sqrt((count - 1) / count * ((left_out - left_out.mean()) ** 2).sum()))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * error
    return KernelDistance(mean, error, mean - reach, mean + reach)


class _KernelSums(NamedTuple):
    """Over the pairs of patients P, Q: the sum of the kernel, and over how many pairs of images."""

    sum_PQ: Float[ndarray, "p q"]
    pairs_PQ: Float[ndarray, "p q"]


def _kernel_sums(
    x_NC: Features,
    y_MC: Others,
    x_members: list[ndarray],
    y_members: list[ndarray],
    *,
    itself: bool,
) -> _KernelSums:
    """The kernel summed by patient, one patient's rows at a time.

    In a set compared with itself no image meets itself.
    """
    count = len(x_members)
    sums, pairs = np.zeros((count, count)), np.zeros((count, count))
    for p, rows in enumerate(x_members):
        kernel = (x_NC[rows] @ y_MC.T / x_NC.shape[1] + 1) ** 3
        if itself:
            kernel[np.arange(len(rows)), rows] = 0
        for q, columns in enumerate(y_members):
            sums[p, q] = kernel[:, columns].sum()
            pairs[p, q] = len(rows) * len(columns) - len(rows) * (itself and p == q)
    return _KernelSums(sums, pairs)


def _estimate(sums: list[_KernelSums], patients: ndarray) -> float:
    chosen = np.ix_(patients, patients)
    aa, bb, ab = (s.sum_PQ[chosen].sum() / s.pairs_PQ[chosen].sum() for s in sums)
    return float(aa + bb - 2 * ab)


def _members(patients: list[str], names: list[str]) -> list[ndarray]:
    return [np.flatnonzero(np.array(patients) == name) for name in names]


def _root(x_NC: Features) -> Float[ndarray, "r c"]:
    """R with R^T R the covariance, at most as many rows as features."""
    centred_NC: Features = (x_NC - x_NC.mean(0)) / np.sqrt(len(x_NC) - 1)
    return centred_NC if len(x_NC) <= x_NC.shape[1] else np.linalg.qr(centred_NC).R
