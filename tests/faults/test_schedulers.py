"""Schedulers that would spoil the jets in silence are refused."""

from __future__ import annotations

import pytest
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from models import small_pipeline

from jet_diffusion.pipelines.schedulers import SCHEDULERS, make_scheduler


@pytest.fixture(scope="module")
def pipeline(converted_folder):
    return small_pipeline(converted_folder)


@pytest.mark.parametrize(
    ("scheduler", "field"),
    [
        (lambda: DDIMScheduler(prediction_type="sample"), "clip_sample"),
        (lambda: DDPMScheduler(prediction_type="sample"), "clip_sample"),
        (lambda: DDPMScheduler(prediction_type="sample", clip_sample=False, thresholding=True), "thresholding"),
        (lambda: DPMSolverMultistepScheduler(prediction_type="sample", thresholding=True), "thresholding"),
    ],
)
def test_what_cuts_jets_is_refused(pipeline, monkeypatch, scheduler, field):
    trained = {name: pipeline.scheduler.config[name] for name in ("beta_start", "beta_end", "beta_schedule")}
    made = scheduler()
    made = type(made).from_config(made.config, **trained)
    monkeypatch.setattr(pipeline, "scheduler", made)
    named = rf"{type(made).__name__} has {field}=True.*{type(made).__name__}\.from_config.*, or set {field}=False"
    with pytest.raises(ValueError, match=named):
        pipeline(2, num_inference_steps=2)


def test_from_config_is_suggested_first(pipeline, monkeypatch):
    other = DDIMScheduler.from_config(pipeline.scheduler.config, prediction_type="epsilon")
    monkeypatch.setattr(pipeline, "scheduler", other)
    with pytest.raises(ValueError, match=r"DDIMScheduler\.from_config\(.*\), or set prediction_type"):
        pipeline(2, num_inference_steps=2)
    monkeypatch.setattr(pipeline, "scheduler", DDIMScheduler.from_config(small_config(pipeline)))
    pipeline.check_scheduler()


def small_config(pipeline):
    """The configuration that the message tells to take."""
    return make_scheduler("sde-dpm++", pipeline.scheduler.config | {"prediction_type": "sample"}).config


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_of_the_table_is_accepted(pipeline, monkeypatch, name):
    """Even if it is made from one that cuts."""
    cutting = {**pipeline.scheduler.config, "clip_sample": True}
    monkeypatch.setattr(pipeline, "scheduler", make_scheduler(name, cutting))
    pipeline.check_scheduler()
