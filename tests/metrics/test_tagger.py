from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from jet_diffusion import cli
from jet_diffusion.data.bundled import sample_path
from jet_diffusion.metrics.networks import tower_images, tower_inputs
from jet_diffusion.metrics.tagger import quark_scores, score_tagger, train_tagger
from jet_diffusion.pipelines.jet_image_processor import JetImageProcessor


@pytest.fixture(scope="module")
def splits(stand_in):
    return stand_in.split([1500, 250, 298], np.random.default_rng(0))


def test_the_processor_makes_the_inputs_that_training_uses(stand_in):
    few = stand_in.take(np.arange(4))
    images = np.moveaxis(few.energies(), 1, -1)
    expected = tower_images(tower_inputs(few))
    found = JetImageProcessor()(images)["pixel_values"]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(JetImageProcessor()(images[0])["pixel_values"], expected[:1])
    with pytest.raises(ValueError, match=r"shape \(N, 125, 125, 3\)"):
        JetImageProcessor()(few.energies())


@pytest.mark.slow
def test_a_tagger_learns_and_repeats_itself(splits):
    train, validation, test = splits
    model = train_tagger(train, validation, steps=150, seed=1)
    scores = score_tagger(model, test)
    assert scores.auc > 0.62
    assert set(scores.by_class) == {"gluon", "quark"} and scores.jets == 298
    again = train_tagger(train, validation, steps=150, seed=1)
    np.testing.assert_array_equal(quark_scores(model, test), quark_scores(again, test))


def test_bad_training_jets_are_refused(splits):
    train, validation, _ = splits
    with pytest.raises(ValueError, match="no architecture 'vit'"):
        train_tagger(train, validation, "vit")
    with pytest.raises(ValueError, match="training jets must be of both classes"):
        train_tagger(train.of_class(1), validation)
    with pytest.raises(ValueError, match="needs 200 training jets, got 100"):
        train_tagger(train.take(np.arange(100)), validation)


@pytest.mark.integration
def test_the_command_saves_what_transformers_loads(stand_in, tmp_path, capsys):
    out = tmp_path / "tagger"
    cli.run(
        "train-tagger",
        [str(sample_path()), "--out", str(out), "--num-jets", "600", "--steps", "20", "--architecture", "convnextv2"],
    )
    assert "AUC" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "config.json",
        "jet_image_processor.py",
        "model.safetensors",
        "preprocessor_config.json",
        "scores.json",
    }
    processor = AutoImageProcessor.from_pretrained(out, trust_remote_code=True)
    model = AutoModelForImageClassification.from_pretrained(out).eval()
    assert model.config.id2label == {0: "gluon", 1: "quark"}
    few = stand_in.take(np.arange(4))
    with torch.inference_mode():
        logits = model(**processor(np.moveaxis(few.energies(), 1, -1))).logits
    np.testing.assert_allclose((logits[:, 1] - logits[:, 0]).numpy(), quark_scores(model, few), rtol=1e-4, atol=1e-5)
    scores = json.loads((out / "scores.json").read_text())
    assert f"{scores['test']['auc']:.4f}" in (out / "README.md").read_text()
    assert "simulated" in (out / "README.md").read_text()
    with pytest.raises(FileExistsError, match="exists"):
        cli.run("train-tagger", [str(sample_path()), "--out", str(out)])
