"""`python -m ray_jobs ...` is `synth-ct ...`: what `ray job submit` runs."""

from ray_jobs.cli import main

main()
