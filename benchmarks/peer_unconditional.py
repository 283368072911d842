"""Peer: diffusers' own recipe for unconditional images, as its `train_unconditional` example sets it.

    python benchmarks/peer_unconditional.py DATA OUT.hdf5 [--seconds 600] [--widths 32 64 128]

UNet2DModel (128 to 512 channels, attention on the last but one level, 114 million parameters) on 128x128 images,
noise predicted with mean squared error, 1,000 linear betas, AdamW 1e-4 with 500 steps of warm-up and a cosine,
batches of 16; sampled by DDPMPipeline, which clamps to [0, 1].
"""

from __future__ import annotations

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler
from peer import PADDED, peer_parser, run_peer

WIDTHS = (128, 128, 256, 256, 512, 512)


def build_network(widths: tuple[int, ...]) -> UNet2DModel:
    """The recipe's UNet; attention on the last but one level."""
    levels = len(widths)
    attention = {levels - 2}
    return UNet2DModel(
        sample_size=PADDED,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=widths,
        norm_num_groups=min(32, widths[0]),
        down_block_types=tuple("AttnDownBlock2D" if i in attention else "DownBlock2D" for i in range(levels)),
        up_block_types=tuple("AttnUpBlock2D" if levels - 1 - i in attention else "UpBlock2D" for i in range(levels)),
    )


def main() -> None:
    """Train, sample and write as the command line says."""
    options = peer_parser(__doc__, batch_size=16, sampling_steps=1000).parse_args()
    torch.manual_seed(options.seed)
    unet = build_network(tuple(options.widths or WIDTHS)).to(options.device)
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    rate = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=options.steps)

    def train(images: torch.Tensor) -> torch.Tensor:
        clean = 2 * images - 1
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, 1000, (len(clean),), device=clean.device)
        predicted = unet(scheduler.add_noise(clean, noise, timesteps), timesteps).sample
        loss = torch.nn.functional.mse_loss(predicted, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        return loss.detach()

    def sample(count: int) -> torch.Tensor:
        pipeline = DDPMPipeline(unet.eval(), scheduler)
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(batch_size=count, num_inference_steps=options.sampling_steps, output_type="np").images
        return torch.from_numpy(images).permute(0, 3, 1, 2)

    parameters = sum(parameter.numel() for parameter in unet.parameters())
    run_peer(options, "diffusers train_unconditional", parameters, train, sample)


if __name__ == "__main__":
    main()
