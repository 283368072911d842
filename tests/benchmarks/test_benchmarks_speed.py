from __future__ import annotations

import os
import re
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import yaml
from models import small_pipeline, tilt

from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.training import runtime
from jet_diffusion.training.build import build_unet
from jet_diffusion.training.settings import UNetSettings

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize("parameters", [3_627_366, 6_704_102])
def test_the_peer_has_as_many_parameters(benchmarks, parameters):
    from benchmarks.peers.unconditional import build_network, count_parameters, equal_widths

    widths = equal_widths(parameters)
    with torch.device("meta"):
        assert count_parameters(build_network(widths)) == pytest.approx(parameters, rel=0.03)
    assert len(widths) == 6
    assert widths[0] == widths[1] < widths[2] == widths[3] < widths[4]


def test_the_recipe_is_the_published_one(benchmarks):
    from benchmarks.peers.unconditional import WIDTHS, build_network, count_parameters

    with torch.device("meta"):
        network = build_network(WIDTHS)
    assert count_parameters(network) == 113_673_219
    assert network.config.norm_num_groups == 32


def test_operations_are_counted_once(benchmarks):
    from benchmarks.speed.contest import count_flops

    layer, image = torch.nn.Conv2d(4, 6, 3, padding=1), torch.randn(2, 4, 8, 8, requires_grad=True)
    products = 2 * 64 * 6 * 4 * 9  # jets, places, out, in, kernel
    assert count_flops(lambda: layer(image)) == 2 * products
    # Backward: one such product for the weights and one for the image.
    assert count_flops(lambda: layer(image).sum().backward()) == 3 * 2 * products


def test_a_tilted_model_is_timed_without_its_tilt_too(benchmarks, converted_folder):
    from benchmarks.speed.sampling import NO_GUIDANCE, our_ddpm, unguided

    model = small_pipeline(converted_folder)
    tilted = JetImagePipeline(**model.components, step_power=1.5, moment_guidance=tilt(0.5))
    plain = unguided(tilted)
    assert plain.config.moment_guidance is None
    assert plain.config.step_power == 1.5
    assert tilted.config.moment_guidance == tilt(0.5)
    solver = tilted.scheduler
    slow = our_ddpm(tilted, 1, 2, nullcontext)
    assert slow.name.endswith(NO_GUIDANCE)
    assert slow.work() == pytest.approx(0.002)
    assert tilted.scheduler is solver


def test_contenders_take_turns_and_ratios_are_of_rounds(benchmarks):
    from benchmarks.speed.contest import Contender, Stopwatch, race, ratio, spread

    turns = []
    first, second = (Contender(name, lambda name=name: turns.append(name) or 2.0) for name in "ab")
    race([first, second], Stopwatch(torch.device("cpu")), rounds=3, seconds=0.0)
    assert turns == list("abababab")
    assert len(first.rates) == 3
    assert all(rate > 0 for rate in first.rates)
    first.rates, second.rates = [2.0, 6.0, 12.0], [1.0, 2.0, 3.0]
    assert ratio(first, second) == "3 (2 to 4)"
    assert spread(first.rates, 0.5) == "3 (1 to 6)"


def test_the_base_model_travels():
    settings = yaml.safe_load((ROOT / "configs" / "reference-base.yaml").read_text())
    with torch.device("meta"):
        unet = build_unet(UNetSettings(preset=settings["unet"]["preset"]), (102, 102), (28, 28))
    assert sum(parameter.numel() for parameter in unet.parameters()) < 8_000_000


def test_an_allocator_of_the_users_own_is_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert runtime.keep_freed_memory() is False


def gpu_run(tmp_path, *stages):
    environment = {**os.environ, "SCALE": "tiny", "WORK": str(tmp_path / "work"), "OUT": str(tmp_path / "out")}
    command = ["bash", str(ROOT / "benchmarks" / "gpu_run.sh"), *stages]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.slow
def test_the_gpu_script_does_all_it_is_for_at_tiny_size_on_a_cpu(tmp_path):
    done = gpu_run(tmp_path, "jets", "train", "bench", "evaluate", "keep")
    assert done.returncode == 0, done.stdout
    log = (tmp_path / "out" / "log.txt").read_text()
    for step in ("convert", "train for", "training speed", "sampling speed", "memory", "loader", "evaluate"):
        assert re.search(rf"== {step}.*: exit 0 after", log), step
    kept = {path.name for path in (tmp_path / "out").iterdir()}
    assert kept == {"log.txt", "records.tar.gz", "model.tar.part-0", "weights.tar.part-0"}


def test_the_gpu_script_knows_its_stages_and_always_keeps_the_log(tmp_path):
    unknown = gpu_run(tmp_path, "trian")
    assert unknown.returncode == 2
    assert "no stage trian" in unknown.stderr
    (tmp_path / "work" / "log.txt").write_text("what an earlier call said\n")
    assert gpu_run(tmp_path, "keep").returncode == 0
    assert (tmp_path / "out" / "log.txt").read_text() == "what an earlier call said\n"
