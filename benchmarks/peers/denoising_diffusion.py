"""Peer: the package `denoising-diffusion-pytorch` with its own defaults, on 128x128 images.

    pip install ".[benchmarks]"      # needs the torchvision that matches torch
    python -m benchmarks.peers.denoising_diffusion DATA OUT.hdf5 [--seconds 600] [--widths 16]

Unet(dim=64, dim_mults=(1, 2, 4, 8)), GaussianDiffusion with 1,000 steps of a sigmoid schedule and v prediction off,
Adam 8e-5, averaged weights, batches of 16, sampled by DDIM in 250 steps. `--widths` takes its `dim`.
"""

from __future__ import annotations

import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Unet
from ema_pytorch import EMA

from benchmarks.peers.images import PADDED, peer_parser, run_peer


def main() -> None:
    """Train, sample and write as the command line says."""
    options = peer_parser(__doc__, batch_size=16, sampling_steps=250).parse_args()
    torch.manual_seed(options.seed)
    network = Unet(dim=(options.widths or [64])[0], dim_mults=(1, 2, 4, 8), flash_attn=False)
    diffusion = GaussianDiffusion(
        network, image_size=PADDED, timesteps=1000, sampling_timesteps=options.sampling_steps
    ).to(options.device)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=8e-5, betas=(0.9, 0.99))
    averaged = EMA(diffusion, beta=0.995, update_every=10)

    def train(images: torch.Tensor) -> torch.Tensor:
        loss = diffusion(images)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        averaged.update()
        return loss.detach()

    def sample(count: int) -> torch.Tensor:
        return averaged.ema_model.eval().sample(batch_size=count).clamp(0, 1)

    parameters = sum(parameter.numel() for parameter in network.parameters())
    run_peer(options, "denoising-diffusion-pytorch", parameters, train, sample)


if __name__ == "__main__":
    main()
