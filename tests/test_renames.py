"""What earlier versions saved is converted on loading."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from models import small_pipeline, tilt
from safetensors.torch import load_file, save_file

from jet_diffusion.errors import UserError
from jet_diffusion.hub import load_pipeline
from jet_diffusion.renames import CONDITIONERS, TENSORS, Gone, convert_arguments, renamed
from jet_diffusion.sampling.sample import describe_sampler
from jet_diffusion.workflows.stage import read_moment_guidance

OLD_DENOISER = {"match_ratio": "hold_ratio", "num_rings": "num_regions"}
OLD_CONDITIONER = {new: old for old, new in CONDITIONERS.items()}
OLD_TENSORS = {new: old for old, new in TENSORS.items()}


def rewrite(file, names, **more):
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({names.get(name, name): value for name, value in settings.items()} | more))


def make_old(folder):
    """Write a saved pipeline as the version before did."""
    rewrite(folder / "model_index.json", {"moment_guidance": "shape_tilt"})
    gone = {"hold_hits": True, "hold_energies": True, "energy_map": "log", "min_variance": 0.05}
    rewrite(folder / "denoiser" / "config.json", OLD_DENOISER, **gone)
    rewrite(folder / "conditioner" / "config.json", OLD_CONDITIONER)
    rewrite(folder / "representation" / "representation_config.json", {}, value_map="log", knots=[])
    for component in ("denoiser", "conditioner"):
        file = folder / component / "diffusion_pytorch_model.safetensors"
        tensors = {}
        for name, tensor in load_file(file).items():
            old = OLD_TENSORS.get(name, name)
            tensors[old] = tensor.view(torch.int32) if old.endswith("_bits") else tensor
        save_file(tensors, file)


@pytest.fixture
def saved(converted_folder, tmp_path):
    options = ["--unet.conditioning=rings", "--representation.ring_edges=[.1,.3]", "--denoiser.crystal_channels=[4]"]
    pipeline = small_pipeline(converted_folder, *options)
    pipeline.register_to_config(moment_guidance=tilt(0.3))
    pipeline.save_pretrained(tmp_path)
    return tmp_path


def jets(source):
    pipeline = load_pipeline(source)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(2, num_inference_steps=3, generator=torch.Generator().manual_seed(0)).images


def test_a_model_of_the_version_before_makes_the_same_jets(saved, caplog):
    expected = jets(saved)
    assert "earlier version" not in caplog.text
    make_old(saved)
    assert np.array_equal(jets(saved), expected)
    assert caplog.text.count("was saved by an earlier version and is converted") == 3


def test_guidance_that_an_earlier_version_fitted_is_converted(converted_folder, tmp_path, caplog):
    pipeline = small_pipeline(converted_folder)
    fitted = {**describe_sampler(pipeline), "training_jets": "abc"}
    del fitted["moment_guidance"]
    file = tmp_path / "shapes.json"
    file.write_text(json.dumps({**fitted, "shape_tilt": tilt(0.3)}))
    assert read_moment_guidance(file, pipeline, "abc") == json.loads(json.dumps(tilt(0.3)))
    assert caplog.messages == [f"{file} was made by an earlier version and is converted"]


def test_what_is_gone_is_refused_by_name(saved):
    make_old(saved)
    rewrite(saved / "denoiser" / "config.json", {}, hold_hits=False)
    with pytest.raises(ValueError, match="hold_hits False is of an earlier version; this one has True alone"):
        load_pipeline(saved)
    rewrite(saved / "denoiser" / "config.json", {}, hold_hits=True, weights_by_position=False)
    with pytest.raises(ValueError, match="weights of its own at each position"):
        load_pipeline(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"unet:\n  block_out_channels: ,[] 86\n", "is not valid YAML: while parsing a block node"),
        (b"data: jets\nrun_dir: \xca\n", "is not valid YAML: unacceptable character #x00ca"),
        (b"a: &a [*a]\n", "is not valid YAML: Circular reference"),
        (b"[" * 100_000, "is not valid YAML: maximum recursion depth"),
        (b"[1, 2]", r"must hold options and their values, but holds \[1, 2\]"),
    ],
)
def test_a_file_that_holds_no_options_is_named(tmp_path, text, message):
    (tmp_path / "options.yaml").write_bytes(text)
    with pytest.raises(UserError, match=f"options.yaml {message}"):
        convert_arguments([f"--config={tmp_path / 'options.yaml'}"])


def test_settings_keep_their_order_and_values():
    names = {"old": "new", "gone": Gone(1)}
    assert renamed({"a": 0, "old": 2, "gone": 1}, names) == {"a": 0, "new": 2}
