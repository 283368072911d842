"""Muon beside torch's own, which takes matrices alone, and AdamW for the rest."""

import pytest
import torch
from models import small_settings
from torch import nn

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.training.build import build_pipeline
from jet_diffusion.training.muon import MuonAdamW, orthogonal, parameter_groups
from jet_diffusion.training.train import make_state

SETTINGS = {"lr": 0.02, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}


class Model(nn.Module):
    """A network of three convolutions and a linear map, beside an embedding."""

    def __init__(self):
        super().__init__()
        self.unet = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 3), nn.Linear(6, 5), nn.Conv2d(5, 2, 1))
        self.conditioner = nn.Embedding(3, 4)


@pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5), (1, 7)])
def test_singular_values_go_to_one_and_vectors_stay(shape):
    left, values, right = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)), False)
    result = orthogonal(left * (0.1 + values) @ right)
    turned = left.T @ result @ right.T
    assert ((turned.diagonal() > 0.6) & (turned.diagonal() < 1.3)).all()
    torch.testing.assert_close(turned, torch.diag(turned.diagonal()), rtol=0, atol=1e-4)
    assert result.shape == shape


def test_zeros_stay_zeros():
    assert (orthogonal(torch.zeros(3, 4)) == 0).all()


def test_each_parameter_is_in_one_group_and_muon_has_the_inner_layers():
    model = Model()
    matrices, rest = parameter_groups(model, model.unet)
    assert matrices["muon"] and not rest["muon"]
    assert [id(p) for p in matrices["params"]] == [id(model.unet[1].weight), id(model.unet[2].weight)]
    together = [id(p) for p in matrices["params"] + rest["params"]]
    assert sorted(together) == sorted(id(p) for p in model.parameters())


def test_matrices_move_as_by_torch_and_the_rest_as_by_adamw():
    torch.manual_seed(0)
    weights = [torch.randn(6, 9), torch.randn(4)]
    mine, peers = ([nn.Parameter(weight.clone()) for weight in weights] for _ in range(2))
    optimizer = MuonAdamW(
        [{"params": mine[:1], "muon": True}, {"params": mine[1:], "muon": False}], fused=False, **SETTINGS
    )
    muon = torch.optim.Muon(peers[:1], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(peers[1:], fused=False, **SETTINGS)
    for _ in range(5):
        for first, second in zip(mine, peers, strict=True):
            first.grad = torch.randn_like(first)
            second.grad = first.grad.clone()
        for one in (optimizer, muon, adamw):
            one.step()
    moved = (mine[0] - weights[0]).norm()
    assert moved > 0.1
    assert (mine[0] - peers[0]).norm() < 0.02 * moved  # torch computes in bfloat16
    assert torch.equal(mine[1], peers[1])


def test_a_kernel_moves_as_its_matrix():
    torch.manual_seed(0)
    kernel = torch.randn(6, 4, 3, 3)
    parameters = [nn.Parameter(kernel.clone()), nn.Parameter(kernel.flatten(1).clone())]
    for parameter in parameters:
        optimizer = MuonAdamW([{"params": [parameter], "muon": True}], **SETTINGS)
        parameter.grad = torch.sin(parameter.detach())
        optimizer.step()
    assert torch.equal(parameters[0].flatten(1), parameters[1])


def test_what_has_no_gradient_stays():
    parameter = nn.Parameter(torch.ones(3, 3))
    MuonAdamW([{"params": [parameter], "muon": True}], **SETTINGS).step()
    assert (parameter == 1).all()


def test_the_trainer_gives_muon_the_unet_s_inner_layers_when_asked(converted_folder):
    jets = JetDataset.load(converted_folder, "train")
    settings = small_settings(converted_folder, "run", "--optimizer.name=muon", "--denoiser.crystal_channels=[4]")
    state = make_state(settings, build_pipeline(settings, jets))
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    matrices, rest = ({names[id(p)] for p in group["params"]} for group in state.optimizer.param_groups)
    assert isinstance(state.optimizer, MuonAdamW)
    assert not matrices & rest and matrices | rest == set(names.values())
    assert all(name.startswith("unet.") and name.endswith("weight") for name in matrices)
    assert {"unet.conv_in.weight", "unet.conv_out.weight"} <= rest
    assert {"unet.mid_block.resnets.0.conv1.weight", "unet.time_embedding.linear_1.weight"} <= matrices
    plain = small_settings(converted_folder, "run")
    assert type(make_state(plain, build_pipeline(plain, jets)).optimizer) is torch.optim.AdamW
