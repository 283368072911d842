"""Loading a pipeline: what is imported for it, what is refused, and what the Hub may answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakehub import FakeHub
from safetensors.torch import load_file, save_file

from jet_diffusion.errors import UserError
from jet_diffusion.hub import LOADABLE, load_pipeline

REFERENCE = Path(__file__).parents[1] / "reference" / "model"


@pytest.fixture
def model(tmp_path):
    """A copy of the reference model that may be damaged."""
    return Path(shutil.copytree(REFERENCE, tmp_path / "model"))


def test_every_loadable_class_exists():
    for classes in LOADABLE.values():
        assert len(classes) > 0
        for name, found in classes.items():
            assert found.__name__ == name
            assert hasattr(found, "from_pretrained")
    with pytest.raises(KeyError):
        LOADABLE["unet"]["Evil"]


IMPORTED = """
import sys
from jet_diffusion import load_pipeline
load_pipeline(sys.argv[1])
optional = ("jet_diffusion.quantum", "jet_diffusion.simulation", "jet_diffusion.metrics", "jet_diffusion.training",
            "datasets", "matplotlib", "sklearn", "tensorboard", "wandb", "trackio", "pennylane")
found = [name for name in optional if any(each == name or each.startswith(name + ".") for each in sys.modules)]
if found:
    sys.exit(", ".join(found))
"""


@pytest.mark.integration
def test_a_classical_model_needs_no_optional_part():
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, str(REFERENCE)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr


def test_missing_tensors_are_named(model):
    file = model / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_in.weight"], tensors["conv_out.bias"]
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"unet lacks 2 tensors of UNet2DModel: conv_in\.weight, conv_out\.bias"):
        load_pipeline(model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"must hold a JSON object, but holds \[\]; save or download the model again"),
        ("null", r"must hold a JSON object, but holds null"),
        ('{"unet": [', r"model_index\.json is not valid JSON .*; save or download the model again"),
        ('{"unet": "UNet2DModel"}', "unet must be a pair of library and class, got 'UNet2DModel'"),
        ("{}", "names no unet, scheduler, representation, denoiser"),
    ],
)
def test_a_broken_index_is_named_with_what_to_do(model, text, message):
    (model / "model_index.json").write_text(text)
    with pytest.raises(UserError, match=message):
        load_pipeline(model)


def test_a_broken_configuration_is_named(model):
    (model / "denoiser" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"denoiser.config\.json is not valid JSON"):
        load_pipeline(model)


def test_a_model_without_checkpoints_has_none_to_choose():
    with pytest.raises(UserError, match="has no checkpoints, so there is no checkpoint best"):
        load_pipeline(REFERENCE, checkpoint="best")
    with pytest.raises(UserError, match="is a folder"):
        load_pipeline(REFERENCE, revision="main")


CLIENT = """
import json, sys
from huggingface_hub import HfApi
from jet_diffusion import load_pipeline
answers = {}
for name in sys.argv[2:]:
    try:
        answers[name] = type(load_pipeline(*name.split("@")[:1], revision=(name.split("@") + [None])[1])).__name__
    except Exception as error:
        answers[name] = f"{type(error).__name__}: {error}"
open(sys.argv[1], "w").write(json.dumps(answers))
"""


def asked_of(hub, tmp_path, *names):
    """What loading each of these repositories gives, and what the process wrote to its standard error."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, str(tmp_path / "answers.json"), *names],
        env=hub.environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    return json.loads((tmp_path / "answers.json").read_text()), done.stderr


UPLOAD = "import sys; from huggingface_hub import HfApi; hub = HfApi(); hub.create_repo('user/jets'); "
UPLOAD += "hub.upload_folder(repo_id='user/jets', folder_path=sys.argv[1])"


@pytest.mark.integration
def test_a_pipeline_comes_from_the_hub_and_then_from_the_cache(tmp_path):
    with FakeHub() as hub:
        hub.failures["user/gated"] = (403, "GatedRepo")
        environment = hub.environment(tmp_path / "publisher")
        subprocess.run([sys.executable, "-c", UPLOAD, str(REFERENCE)], env=environment, timeout=900, check=True)
        answers, _ = asked_of(hub, tmp_path, "user/jets", "user/jets@old", "user/gated")
        assert answers == {
            "user/jets": "JetImagePipeline",
            "user/jets@old": "FileNotFoundError: the repository user/jets has no revision old",
            "user/gated": "PermissionError: user/gated is gated: ask for access on its page, then log in with `hf auth "
            "login`",
        }
        hub.failures["user/jets"] = (503, None)
        answers, said = asked_of(hub, tmp_path, "user/jets")
        assert answers["user/jets"] == "JetImagePipeline"
        assert "(HTTP 503); try again later; taking the copy of user/jets in the cache" in said
