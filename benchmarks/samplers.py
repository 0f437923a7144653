"""Error of the samplers against evaluations of the network, where the exact answer is known.

    .venv/bin/python benchmarks/samplers.py [--write docs/results/samplers.md]

The data are a mixture of Gaussians, so that the network can be replaced by its exact answer; what
is left is the error of the solver. The plot is written beside the page.
"""

import argparse
import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from synth_ct.diffusion import DiffusionRecipe, SamplerRecipe, ddpm, flow, sample
from synth_ct.diffusion.objectives import schedule

EPSILON, FLOW = DiffusionRecipe(), DiffusionRecipe(objective="flow")
DIMS, MODES, SAMPLES, SEED = 64, 8, 256, 0
EVALUATIONS = (5, 8, 10, 15, 20, 30, 50, 100)
EXACT = 4000
"""Evaluations of the reference, Heun's; with half as many it differs as the page says."""


@dataclass(frozen=True)
class Mixture:
    """Diagonal Gaussians of equal weight."""

    mean_MD: torch.Tensor
    variance_MD: torch.Tensor

    def clean(self, z_BD: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
        """E[x | z] where z = alpha x + sigma eps."""
        variance_MD = alpha**2 * self.variance_MD + sigma**2
        away_BMD = z_BD.double()[:, None] - alpha * self.mean_MD
        log_p_BM = -0.5 * (away_BMD.square() / variance_MD + variance_MD.log()).sum(2)
        gain_MD = alpha * self.variance_MD / variance_MD
        clean_BMD = self.mean_MD + gain_MD * away_BMD
        return torch.einsum("bm,bmd->bd", log_p_BM.softmax(1), clean_BMD)

    def noise(self, z_BD: torch.Tensor, time_B: torch.Tensor) -> torch.Tensor:
        """What the perfect network of the epsilon objective answers."""
        level = schedule(EPSILON).at_time(time_B[0].item())
        return ddpm.noise_from_clean(z_BD, self.clean(z_BD, level.alpha, level.sigma), level)

    def velocity(self, z_BD: torch.Tensor, time_B: torch.Tensor) -> torch.Tensor:
        """What the perfect network of the flow answers; at t = 0 it is taken a hair before."""
        t = max(time_B[0].item() / ddpm.LAST_TIME, 1e-4)
        return flow.velocity_from_clean(z_BD, self.clean(z_BD, 1.0 - t, t), t)


@dataclass(frozen=True)
class Solver:
    """One line of the plot."""

    label: str
    diffusion: DiffusionRecipe
    name: str
    spacing: str
    style: str

    def run(self, mixture: Mixture, start_BD: torch.Tensor, evaluations: int) -> torch.Tensor:
        """Where each start ends."""
        asked = {"name": self.name, "evaluations": evaluations, "spacing": self.spacing}
        recipe = SamplerRecipe.model_validate(asked)
        predict = mixture.noise if self.diffusion is EPSILON else mixture.velocity
        return sample(self.diffusion, recipe, predict, lambda: start_BD)


SOLVERS = (
    Solver("DDIM uniform", EPSILON, "ddim", "uniform", "C0o-"),
    Solver("DDIM Karras", EPSILON, "ddim", "karras", "C0s--"),
    Solver("DPM++2M uniform", EPSILON, "dpmpp_2m", "uniform", "C1o-"),
    Solver("DPM++2M log-SNR", EPSILON, "dpmpp_2m", "logsnr", "C1^:"),
    Solver("DPM++2M Karras", EPSILON, "dpmpp_2m", "karras", "C1s--"),
    Solver("Heun Karras", EPSILON, "heun", "karras", "C2s--"),
    Solver("flow, Euler", FLOW, "euler", "uniform", "C3o-"),
    Solver("flow, Heun", FLOW, "heun", "uniform", "C4o-"),
)
REFERENCES = (
    Solver("exact", EPSILON, "heun", "logsnr", ""),
    Solver("exact flow", FLOW, "heun", "uniform", ""),
)
Errors = dict[tuple[str, int], tuple[float, float]]
"""RMS and median by solver and evaluations."""


# ---- measuring ---------------------------------------------------------------------------------


def problem() -> tuple[Mixture, torch.Tensor]:
    """The data and the noise that all solvers start from."""
    random = torch.Generator().manual_seed(SEED)
    mean_MD = 0.8 * torch.randn(MODES, DIMS, generator=random, dtype=torch.float64)
    extent_MD = torch.rand(MODES, DIMS, generator=random, dtype=torch.float64)
    variance_MD = 0.02 * 25.0**extent_MD
    return Mixture(mean_MD, variance_MD), torch.randn(SAMPLES, DIMS, generator=random)


def relative(end_BD: torch.Tensor, exact_BD: torch.Tensor) -> tuple[float, float]:
    """RMS over all samples, and the median sample's."""
    away_BD = end_BD.double() - exact_BD.double()
    error_B = (away_BD.square().mean(1) / exact_BD.double().square().mean()).sqrt()
    return error_B.square().mean().sqrt().item(), error_B.median().item()


def measure() -> tuple[Errors, float]:
    """All errors, and the greater of the references' own."""
    mixture, start_BD = problem()
    exact = {each.diffusion: each.run(mixture, start_BD, EXACT) for each in REFERENCES}
    coarse = {each.diffusion: each.run(mixture, start_BD, EXACT // 2) for each in REFERENCES}
    doubt = max(relative(coarse[each], exact[each])[0] for each in exact)
    errors = {
        (solver.label, count): relative(
            solver.run(mixture, start_BD, count), exact[solver.diffusion]
        )
        for solver in SOLVERS
        for count in EVALUATIONS
    }
    return errors, doubt


# ---- the report --------------------------------------------------------------------------------


def table(errors: Errors, which: int) -> str:
    """A row for each number of evaluations."""
    labels = [solver.label for solver in SOLVERS]
    head = ["| evaluations | " + " | ".join(labels) + " |", "|---" * (len(labels) + 1) + "|"]
    rows = [
        f"| {count} | "
        + " | ".join(f"{errors[label, count][which]:.4f}" for label in labels)
        + " |"
        for count in EVALUATIONS
    ]
    return "\n".join([*head, *rows])


def report(errors: Errors, doubt: float) -> str:
    """The page."""
    few, many = errors["DPM++2M Karras", 15], errors["DDIM uniform", 50]
    return TEMPLATE.format(
        rms=table(errors, 0),
        median=table(errors, 1),
        by_rms=f"{many[0] / few[0]:.1f}",
        by_median=f"{many[1] / few[1]:.1f}",
        doubt=f"{doubt:.0e}",
        exact=EXACT,
        samples=SAMPLES,
        modes=MODES,
        dims=DIMS,
        seed=SEED,
        today=date.today(),
        cores=os.cpu_count(),
        torch=torch.__version__,
    )


def plot(errors: Errors, path: Path) -> None:
    """Both errors against evaluations, on logarithmic axes."""
    figure, both = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    for which, (axes, title) in enumerate(zip(both, ("RMS", "median"), strict=True)):
        for solver in SOLVERS:
            line = [errors[solver.label, count][which] for count in EVALUATIONS]
            axes.loglog(EVALUATIONS, line, solver.style, label=solver.label, markersize=4)
        axes.set(title=f"{title} over samples", xlabel="evaluations of the network")
        axes.set_xticks(EVALUATIONS, [str(count) for count in EVALUATIONS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    both[0].set_ylabel("error relative to the exact solution")
    both[1].legend(fontsize=8)
    figure.savefig(path, dpi=110)


TEMPLATE = """# Samplers: error against evaluations

The paper's noise schedule (T = 1000, square roots of beta even from 0.0015 to 0.0125) and
rectified flow from noise. The data are a mixture of {modes} Gaussians in {dims} dimensions, for
which the best possible network is known; {samples} samples from the same noise; error relative to
the exact solution of the same equation (Heun, {exact} evaluations; with half as many it moves by
{doubt}). What a trained network errs by is not in here.

![Error against evaluations](samplers.png)

RMS over all samples:

{rms}

Median over samples. A single sample that ends in another mode moves the RMS, not the median:

{median}

| goal | found |
|---|---|
| DPM-Solver++(2M) with 15 evaluations errs less than DDIM with 50, in RMS | {by_rms} times less |
| the same, in the median | {by_median} times less |

The columns of flow solve another equation, with its own exact solution. An odd number of Heun's
evaluations ends with a step of Euler's.

Recipe: `.venv/bin/python benchmarks/samplers.py --write docs/results/samplers.md`, {today}, a
machine of {cores} cores, CPU only; seed {seed}, torch {torch}.
"""


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    errors, doubt = measure()
    text = report(errors, doubt)
    print(text)
    if asked.write:
        asked.write.write_text(text)
        plot(errors, asked.write.with_suffix(".png"))


if __name__ == "__main__":
    main()
