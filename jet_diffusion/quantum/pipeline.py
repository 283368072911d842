"""QuantumJetPipeline: jets sampled as quantum states. On the Hub this file is `pipeline.py`."""

from __future__ import annotations

from typing import Any

import torch

from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.pipelines.jet_output import JetImagePipelineOutput
from jet_diffusion.pipelines.random_numbers import RandomNumbers


class QuantumJetPipeline(JetImagePipeline):
    """A `JetImagePipeline` whose images are states: the representation is a `JetAmplitudeEncoder`.

    Sampling starts from the states of the scheduler's `start` (Haar-random by default). Class, pT, mass and energies
    that are not given are drawn by the first stage; the model sees the class alone,
    and decoded jets are scaled to their energies. Images are 125x125, but all their structure is that of 16x16 cells:
    `to_cells` gives those.
    """

    note = (
        "A simulated quantum model: jets are states of qubits, of far fewer cells than the images have crystals, and "
        "what lies below a cell is not modelled. The circuit knows a jet's class alone; a classical network draws pT, "
        "mass and energies, and the states are scaled to them. No advantage over classical models is claimed."
    )
    """Said on the model's card."""

    _sampling = False
    _state: torch.Tensor | None = None

    def __call__(self, *args: Any, state: torch.Tensor | None = None, **kwargs: Any) -> JetImagePipelineOutput:
        """Generate jets, as `JetImagePipeline` does.

        Args:
            args, kwargs: As there.
            state: (2, H, W) the state to start from, for a scheduler with start "state".
        """
        self._state, self._sampling = state, True
        try:
            return super().__call__(*args, **kwargs)
        finally:
            self._state, self._sampling = None, False

    def to_cells(self, images: torch.Tensor) -> torch.Tensor:
        """Energies (N, 125, 125, 3) summed over cells: (N, 3, 16, 16), GeV/100; exact for generated jets."""
        return self.representation.pool(torch.as_tensor(images).movedim(-1, 1))

    def _noise(self, random: RandomNumbers) -> torch.Tensor:
        noise = super()._noise(random)
        if not self._sampling:  # a reconstruction's, which the denoiser turns into states
            return noise
        if hasattr(self.scheduler, "prior"):
            return self.scheduler.prior(noise, self._state)
        if self._state is not None:
            raise ValueError(f"{type(self.scheduler).__name__} takes no start state; use QuantumChannelScheduler")
        # A scheduler of diffusers: Haar-random amplitudes have half the variance in each real part.
        return noise * (0.5**0.5)
