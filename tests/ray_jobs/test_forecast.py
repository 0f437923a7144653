"""What a run will take: against figures reckoned elsewhere, and against itself."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ray_jobs.cli import app
from ray_jobs.console import guarded
from ray_jobs.estimates import SOMETHING, SOURCES, Estimate, estimate, known, windows
from ray_jobs.forecast import Forecast, Job, forecast, scheduled
from ray_jobs.plan import Result, Step
from ray_jobs.recipes import Ingested, paper, phantom_study, with_settings
from ray_jobs.steps import steps_of
from ray_jobs.workload import H200, Device, Kernel, Net, Pass, counted, seconds_of
from synth_ct.kit.artifact import Record, publish

NOWHERE = Path("/nowhere")
ONE_GPU_HOURS = {
    "autoencoder/paper": 2 * 0.73,  # 80,000 steps of 2 volumes of 128^3, one forward pass shared
    "prior/paper": 0.50,  # 50,000 steps of 16
    "denoiser/paper": 0.79,  # 100,000 steps of 8 latents encoded before
    "style/paper": 0.22,  # CycleGAN, 200 epochs of 1,000 pairs of films
    "corpus/synthetic": 0.12,  # 5,856 volumes from 50 evaluations each
    "encoder/swin-synthetic-s0": 2 * 0.25,  # 50,000 steps of 2 views of 4 crops
    "fits/bcv-swin-synthetic-f0-s0": 0.57,  # 50,000 steps of 4 crops of 96^3
}
"""Operation by operation, arithmetic or bytes, whichever takes longer; bfloat16, one GPU."""
BYTES = {
    "corpus/synthetic": 5856 * 2.33e6,  # .nii.gz of 128^3
    "cohorts/pairs": 1018 * 4.19e6,  # int16, as it is
}


@cache
def papers_steps(*settings: str) -> list[Step]:
    return steps_of(with_settings(paper(), list(settings)))


def results(steps: Sequence[Step], *done: str) -> list[Result]:
    return [
        Result(
            name=s.name, status="done" if s.name in done else "missing", seconds=0.0, folder=s.name
        )
        for s in steps
    ]


def foreseen(steps: Sequence[Step], gpus: int, *done: str) -> Forecast:
    return forecast(steps, results(steps, *done), NOWHERE, gpus)


@cache
def hours(*settings: str) -> dict[str, float]:
    planned = foreseen(papers_steps(*settings), 1).planned
    return {each.step.name: each.seconds / 3600 for each in planned}


# ---- hours and bytes ---------------------------------------------------------------------------


@pytest.mark.parametrize("step", ONE_GPU_HOURS)
def test_the_papers_hours_are_within_a_factor_of_two_of_what_others_reckoned(step: str) -> None:
    assert 0.5 < hours()[step] / ONE_GPU_HOURS[step] < 2


def test_thirty_fits_of_the_swin_unetr_take_a_day_of_one_gpu() -> None:
    fits = sorted(name for name in hours() if name.startswith("fits/bcv-swin"))
    assert 0.5 < sum(hours()[name] for name in fits[:30]) / 17.2 < 2


@pytest.mark.parametrize("step", BYTES)
def test_the_papers_disk_is_within_a_factor_of_two_of_what_others_reckoned(step: str) -> None:
    planned = {each.step.name: each for each in foreseen(papers_steps(), 1).planned}
    assert 0.5 < planned[step].cost.stored / BYTES[step] < 2


def test_half_the_steps_take_half_the_hours() -> None:
    halved = hours(
        "generator.autoencoder.training.steps=40_000",
        "generator.autoencoder.adversary.start=10_000",
        "generator.prior.training.steps=25_000",
        "generator.denoiser.training.steps=50_000",
        "generator.style.training.steps=100_000",
        "generator.style.training.rate.hold_steps=50_000",
        "pretraining.networks.swin.training.steps=25_000",
        "folds.networks.unet.training.steps=25_000",
    )
    for name in ("autoencoder/paper", "prior/paper", "denoiser/paper", "style/paper"):
        assert halved[name] == pytest.approx(hours()[name] / 2, rel=0.02)
    for name in ("encoder/swin-real-s1", "fits/spleen-unet-drr-f3-s2"):
        assert halved[name] == pytest.approx(hours()[name] / 2, rel=0.02)
    untouched = "fits/spleen-swin-drr-f3-s2"
    assert halved[untouched] == hours()[untouched]


def test_half_precision_takes_half_the_time_and_discriminators_take_some() -> None:
    quick = hours("generator.autoencoder.training.precision=bfloat16")["autoencoder/paper"]
    assert quick == pytest.approx(hours()["autoencoder/paper"] / 2, rel=0.02)
    alone = hours("generator.autoencoder.adversary=none")["autoencoder/paper"]
    assert 1.02 < hours()["autoencoder/paper"] / alone < 1.3


def test_evaluations_and_samples_are_what_a_corpus_takes() -> None:
    settings = "generator.sampler.evaluations=100", "corpus.samples=2"
    corpus = hours(*settings)["corpus/synthetic"] / hours()["corpus/synthetic"]
    assert 3 < corpus < 4  # the decoder's part does not grow with evaluations
    assert hours()["corpus/prior_only"] < 0.1 * hours()["corpus/synthetic"]


def test_real_cases_count_as_published_until_they_are_ingested_and_counted(tmp_path: Path) -> None:
    name = "cohorts/ct"
    lidc, own = (
        Step(name=name, stage="cohorts", recipe=Ingested(importer=importer), make=None)
        for importer in ("lidc", "folder")
    )
    assert known([lidc], tmp_path).sources[name] == SOURCES["lidc"]
    assert known([own], tmp_path).sources[name] == SOMETHING
    with publish(tmp_path / name, Record(kind="cohort/ct", recipe={})) as workspace:
        (workspace / "cohort.json").write_text(json.dumps({"summary": {"accepted": 7}}))
    counted_cohorts = known([lidc], tmp_path)
    assert counted_cohorts.sources[name].cases == 7
    assert estimate(lidc, counted_cohorts).stored < estimate(lidc, known([lidc], NOWHERE)).stored


@pytest.mark.parametrize(
    ("grid", "overlap", "expected"),
    [
        ((187, 187, 187), 0.5, 27),
        ((240, 240, 200), 0.25, 27),
        ((267, 267, 300), 0.5, 150),
        ((267, 267, 300), 0.25, 64),
        ((334, 334, 434), 0.0, 80),
        ((60, 96, 97), 0.5, 2),
    ],
)
def test_windows_are_as_many_as_prediction_takes(
    grid: tuple[int, int, int], overlap: float, expected: int
) -> None:
    assert windows(grid, (96, 96, 96), overlap) == expected


# ---- kernels -----------------------------------------------------------------------------------


def test_a_kernel_takes_its_arithmetic_its_bytes_or_its_launch_whichever_is_longest() -> None:
    device = Device("toy", flop_per_s=100.0, bytes_per_s=10.0, launch_s=1.0, half=2.0)
    net = Net((Kernel(flop=500, moved=10), Kernel(flop=10, moved=30), Kernel(0, 0)), stored=0)
    assert seconds_of(Pass(net, samples=1, batch=1), device) == 5 + 3 + 1
    assert seconds_of(Pass(net, samples=8, batch=4), device) == 2 * (20 + 12 + 1)
    assert seconds_of(Pass(net, samples=8, batch=4, half=True), device) == 2 * (10 + 6 + 1)


def test_products_and_attention_are_counted_and_views_are_not() -> None:
    with torch.device("meta"):
        layer = nn.Linear(8, 4, bias=False)
    kernels = counted(lambda x: layer(x).view(-1), (2, 8))
    assert [k.flop for k in kernels] == [2 * 2 * 8 * 4]
    assert kernels[0].moved == 4 * (2 * 8 + 8 * 4 + 2 * 4)
    attend = nn.functional.scaled_dot_product_attention
    (kernel,) = counted(lambda q: attend(q, q, q), (1, 2, 16, 8))
    assert kernel.flop == 2 * (2 * 2 * 16 * 16 * 8)
    assert kernel.moved == 4 * 4 * (2 * 16 * 8)


# ---- schedules ---------------------------------------------------------------------------------


def job(name: str, seconds: float, *inputs: str, **fields: Any) -> Job:
    return Job(name=name, seconds=seconds, inputs=inputs, **({"slots": 1.0} | fields))


def test_jobs_wait_for_inputs_and_devices_and_the_longest_way_goes_first() -> None:
    jobs = [job("c", 7.0), job("a", 10.0), job("b", 5.0, "a"), job("free", 30.0, slots=0.0)]
    assert scheduled(jobs[:3], 1).seconds == 22
    assert scheduled(jobs[:3], 2).seconds == 15
    assert [each.name for each in scheduled(jobs[:3], 2).path] == ["a", "b"]
    assert scheduled(jobs, 2).seconds == 30
    assert scheduled([job("d", 7.0), *jobs[:3]], 2).seconds == 15


def test_nothing_runs_beside_the_driver() -> None:
    jobs = [job("x", 3.0, alone=True), job("y", 4.0, alone=True), job("t", 5.0), job("u", 5.0)]
    assert scheduled(jobs, 8).seconds == 3 + 4 + 5
    later = [job("t", 5.0), job("u", 1.0), job("x", 2.0, "u", alone=True)]
    assert scheduled(later, 8).seconds == 5 + 2
    assert scheduled([job("wide", 2.0, slots=2.0), job("t", 5.0)], 2).seconds == 7


def test_more_gpus_never_take_longer_and_none_beat_the_critical_path() -> None:
    seconds = []
    for gpus in (1, 3, 8, 32, 64):
        made = foreseen(papers_steps(), gpus)
        busy = sum(each.seconds for each in made.planned if each.step.gpus)
        seconds.append(made.schedule.seconds)
        assert made.schedule.seconds >= made.schedule.path_seconds
        assert made.idle_share == pytest.approx(1 - busy / (gpus * made.schedule.seconds))
        assert 0 <= made.idle_share < 1
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[-1] < 0.1 * seconds[0]


def test_what_is_done_costs_nothing() -> None:
    steps = papers_steps()
    names = [step.name for step in steps]
    assert foreseen(steps, 4, *names).schedule.seconds == 0
    before, after = foreseen(steps, 1), foreseen(steps, 1, "autoencoder/paper")
    spared = next(e.seconds for e in before.planned if e.step.name == "autoencoder/paper")
    assert after.schedule.seconds == pytest.approx(before.schedule.seconds - spared)
    done = next(e for e in after.planned if e.step.name == "autoencoder/paper")
    assert done.seconds == 0
    assert done.cost == Estimate()


def test_a_run_without_gpus_is_planned_for_two_cores() -> None:
    made = foreseen(steps_of(phantom_study()), 8)
    assert (made.device, made.schedule.devices) == ("core", 2)
    assert 0.3 < made.schedule.seconds / 3600 < 3  # two hours beside others' work
    assert H200.name not in {each.step.name for each in made.planned}


# ---- told --------------------------------------------------------------------------------------


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    given = ["run", "paper", "--dry-run", *words]
    assert guarded(lambda w: app(args=w, standalone_mode=False), given) == 0
    return capsys.readouterr().out


def test_a_plan_fits_on_a_page_and_says_what_waits_for_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, "--root", str(tmp_path), "--gpus", "32")
    assert len(text.splitlines()) < 60
    assert "missing fits/bcv-swin-*" in text
    assert "105 x 0." in text
    assert "<- cohorts/bcv, cohorts/bcv_folds, cohorts/bcv_cases, fits/protocol, encoder/" in text
    assert "critical path" in text
    assert "idle " in text
    assert f"synth-ct ingest lidc SRC {tmp_path / 'cohorts/ct'}" in text
    assert "more GPUs needed by" not in text
    assert "more GPUs needed by" in said(capsys, "--root", str(tmp_path), "--gpus", "0")


def test_a_program_gets_every_step_and_the_schedule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads(said(capsys, "--root", str(tmp_path), "--gpus", "32", "--json"))
    assert {"root", "steps", "report", "forecast"} <= set(told)
    assert {"name", "status", "gpus", "hours", "bytes"} <= set(told["steps"][0])
    assert len(told["steps"]) == len(papers_steps())
    summary = told["forecast"]
    on_gpus = [step["hours"] for step in told["steps"] if step["gpus"]]
    assert summary["gpu_hours"] == pytest.approx(sum(on_gpus))
    path = summary["critical_path"]
    assert sum(e["hours"] for e in path) == pytest.approx(summary["critical_path_hours"])
    assert summary["makespan_hours"] >= summary["critical_path_hours"]
    assert summary["bring"][0] == "cohorts/ct"
