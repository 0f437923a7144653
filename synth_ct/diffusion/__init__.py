"""From noise, or from the prior, to a latent: what a denoiser learns, and how it is sampled.

`training_pair` makes what the network sees and what it should answer; `sample` turns fresh noise
into a latent with a given number of evaluations. Neither knows what the network is.
"""

from synth_ct.diffusion.objectives import DiffusionRecipe, TrainingPair, training_pair
from synth_ct.diffusion.samplers import SamplerRecipe, demand_match, sample

__all__ = [
    "DiffusionRecipe",
    "SamplerRecipe",
    "TrainingPair",
    "demand_match",
    "sample",
    "training_pair",
]
