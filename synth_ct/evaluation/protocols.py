"""Named protocols, and the scores of made volumes under one.

PSNR and SSIM of the same two volumes differ by up to 9.6 dB and 0.18 between the conventions of
the literature, more than methods do. So no number here is without the name of its protocol.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from numpy import ndarray

from synth_ct.evaluation.lpips_distance import lpips_distance
from synth_ct.evaluation.psnr import psnr, psnr_x2ct, psnr_x2ct_slices
from synth_ct.evaluation.ssim import ssim, ssim_x2ct
from synth_ct.evaluation.tissue import mae, mae_by_tissue
from synth_ct.kit.axes import HuArray
from synth_ct.models.perceptual import LpipsDistance

Volumes = Mapping[str, ndarray]
"""case -> HU, XYZ."""
CaseScores = dict[str, float]
"""metric -> value; `mae_hu/lung` is the error of one tissue, left out where there is none."""
Scores = dict[str, CaseScores]
"""case -> metric -> value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How volumes are compared, under a name."""

    name: str
    says: str
    psnr: Callable[[HuArray, HuArray], float]
    ssim: Callable[[HuArray, HuArray], float]
    lpips: bool = False


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="hu1500",
            says="HU window [-1000, 1500]; PSNR of the volume, peak 2500; 3D Gaussian SSIM, "
            "sigma 1.5, range 2500; LPIPS over slices of three planes",
            psnr=psnr,
            ssim=ssim,
            lpips=True,
        ),
        Protocol(
            name="x2ct",
            says="as X2CT's code: whole HU in the same window; psnr-3d with peak 4095; SSIM-avg, "
            "slices in uniform 7 x 7 windows, mean of three axes",
            psnr=psnr_x2ct,
            ssim=ssim_x2ct,
        ),
        Protocol(
            name="x2ct-avg",
            says="as x2ct, but PSNR-avg: mean of the slices' PSNR over three axes, slices "
            "without error counting 100 dB",
            psnr=psnr_x2ct_slices,
            ssim=ssim_x2ct,
        ),
    )
}


def score(
    made: Volumes, truth: Volumes, protocol: Protocol, lpips: LpipsDistance | None = None
) -> Scores:
    """Every case under one protocol. Made and true volumes must be of the same cases."""
    if made.keys() != truth.keys():
        odd = ", ".join(sorted(made.keys() ^ truth.keys())[:5])
        raise ValueError(
            f"{len(made)} made and {len(truth)} true volumes are not of the same cases ({odd}); "
            "a mean over other cases compares nothing"
        )
    return {case: score_case(made[case], truth[case], protocol, lpips) for case in sorted(truth)}


def score_case(
    made_XYZ: ndarray, truth_XYZ: ndarray, protocol: Protocol, lpips: LpipsDistance | None = None
) -> CaseScores:
    """One made volume against the truth."""
    if made_XYZ.shape != truth_XYZ.shape:
        raise ValueError(
            f"a volume of {made_XYZ.shape} voxels cannot be compared with a truth of "
            f"{truth_XYZ.shape}; resample it to the truth's grid"
        )
    tissues = mae_by_tissue(made_XYZ, truth_XYZ)
    values = {
        "psnr": protocol.psnr(made_XYZ, truth_XYZ),
        "ssim": protocol.ssim(made_XYZ, truth_XYZ),
        "mae_hu": mae(made_XYZ, truth_XYZ),
        **{f"mae_hu/{t}": row.mae_hu for t, row in tissues.items() if row.mae_hu is not None},
        **{f"share/{tissue}": row.share for tissue, row in tissues.items()},
    }
    if protocol.lpips and lpips is not None:
        values["lpips"] = lpips_distance(made_XYZ, truth_XYZ, lpips)
    return values
