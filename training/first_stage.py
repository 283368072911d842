"""Training of the first stage, before the first step of the image's network."""

from __future__ import annotations

import torch
from torch import nn
from tqdm.auto import tqdm

from jet_diffusion.pipelines.first_stage import Conditions, FirstStage

STEPS, BATCH, EPOCHS = 1000, 512, 20
"""Most steps of a training, jets of each, and how often each jet is seen where there are few."""


def fit_first_stage(jets: Conditions, seed: int, *, train: bool = True, progress: bool = False) -> FirstStage:
    """Train a first stage on the conditions of training jets: about a minute on one core.

    Args:
        jets: Conditions of the training jets.
        seed: Seeds weights and batches.
        train: Whether to train it; without, each number is drawn by itself, distributed as in the training jets.
        progress: Whether to show a bar.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        quarks = jets.labels.double().mean().item()
        model = FirstStage(num_rings=jets.ring_sums.shape[1] // 2, quark_fraction=quarks)
        model.set_quantiles(jets, generator)
        count = len(jets.labels)
        batch = min(BATCH, count)
        steps = min(max(EPOCHS * count // batch, 50), STEPS) if train else 0
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=max(1, steps), pct_start=0.1)
        for _ in tqdm(range(steps), desc="first stage", unit="step", leave=False, disable=not progress):
            rows = torch.randint(count, (batch,), generator=generator)
            loss = model.negative_log_likelihood(Conditions(*(column[rows] for column in jets))).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    return model.eval()
