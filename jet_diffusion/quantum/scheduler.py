"""QuantumChannelScheduler: noise channels forward and their reversal, behind the interface of diffusers' schedulers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, DDPMScheduler, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from .channels import CHANNELS, depolarize, kraus, scramble, scramble_angles, trajectory
from .simulator import num_qubits
from .states import UNRAVELLINGS, haar_states, mix, real_noise, to_images, to_states, unit_norm

ONE_WAY = {
    "dephasing": "dephasing leaves the probabilities of an amplitude-encoded jet as they are: it noises nothing",
    "amplitude_damping": "amplitude damping ends in |0...0>, all energy in one cell: no randomness to start from",
    "scramble": "undoing a scrambling circuit takes trained circuits, one a step: QuDDPM",
}
STARTS = ("haar", "mixed", "state")


@dataclass
class QuantumChannelSchedulerOutput(BaseOutput):
    """What a step gives.

    Attributes:
        prev_sample: (B, 2, H, W) the states one step less noisy.
        pred_original_sample: (B, 2, H, W) the prediction the step was given.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor


class QuantumChannelScheduler(SchedulerMixin, ConfigMixin):
    r"""Noise channels on states (B, 2, H, W), see `states.py`, with alpha-bar of an ordinary noise schedule.

    At timestep t the channel has strength 1 - alpha_bar_t (`density` is the exact channel on density matrices).
    `depolarizing` with `haar_mix` is the process that models are trained with: psi_t = N[sqrt(abar) psi_0 +
    sqrt(1 - abar) phi], phi Haar-random. Its steps are DDIM's (arXiv:2010.02502) on amplitudes, projected to unit norm:

        eps = (x - sqrt(abar) x_0) / sqrt(1 - abar)
        x'  = N[ sqrt(abar') x_0 + sqrt(1 - abar' - s^2) eps + s phi ]
        s   = eta sqrt((1 - abar') / (1 - abar)) sqrt(1 - abar / abar')

    Args:
        num_train_timesteps, beta_schedule, beta_start, beta_end, rescale_betas_zero_snr: As in DDPMScheduler.
        channel: depolarizing, dephasing, amplitude_damping or scramble.
        unravelling: haar_mix; classical (Gaussian noise on the amplitudes, re-encoded as a state at every step);
            trajectory (random jumps of pure states); none (density matrices only).
        eta: 0 steps deterministically; 1 adds as much fresh noise as the forward process took away.
        start: What sampling starts from: haar; mixed, one random basis state a jet, whose average is as maximally
            mixed; state, a chosen one. The models know Haar-random starts.
        prediction_type: Always "sample".
        scramble_steps: Timesteps are spread over so many scrambling circuits.
    """

    order = 1

    @register_to_config
    def __init__(  # noqa: PLR0913, PLR0917
        self,
        num_train_timesteps: int = 1000,
        beta_schedule: str = "linear",
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        rescale_betas_zero_snr: bool = False,
        channel: str = "depolarizing",
        unravelling: str = "haar_mix",
        eta: float = 0.0,
        start: str = "haar",
        prediction_type: str = "sample",
        scramble_steps: int = 20,
    ) -> None:
        unravellings = (*UNRAVELLINGS, "trajectory", "none")
        if channel not in CHANNELS or unravelling not in unravellings or start not in STARTS:
            raise ValueError(
                f"channel is one of {CHANNELS}, unravelling of {unravellings}, start of {STARTS}; "
                f"got {channel!r}, {unravelling!r}, {start!r}"
            )
        if unravelling in UNRAVELLINGS and channel != "depolarizing":
            raise ValueError(f"{unravelling} unravels the depolarizing channel; for {channel} take trajectory or none")
        if prediction_type != "sample" or not 0 <= eta <= 1:
            raise ValueError(f"prediction_type must be sample and eta in [0, 1], got {prediction_type!r} and {eta}")
        betas = DDPMScheduler(
            num_train_timesteps=num_train_timesteps,
            beta_schedule=beta_schedule,
            beta_start=beta_start,
            beta_end=beta_end,
            rescale_betas_zero_snr=rescale_betas_zero_snr,
        )
        self.alphas_cumprod: torch.Tensor = betas.alphas_cumprod
        self.init_noise_sigma = 1.0
        self.set_timesteps(num_train_timesteps)

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: list[int] | None = None,
    ) -> None:
        """Choose the timesteps to step through: so many, evenly from the last one, or those given, falling."""
        total = len(self)
        if timesteps is None:
            if num_inference_steps is None or not 1 <= num_inference_steps <= total:
                raise ValueError(f"num_inference_steps must lie in 1 to {total}, got {num_inference_steps}")
            spread = total - torch.arange(num_inference_steps, dtype=torch.float64) * total / num_inference_steps
            chosen = spread.round().long() - 1
        else:
            chosen = torch.tensor(timesteps, dtype=torch.long)
            if not len(chosen) or chosen[0] >= total or chosen[-1] < 0 or not (chosen.diff() < 0).all():
                raise ValueError(f"timesteps must fall from at most {total - 1} to at least 0, got {timesteps!r:.100}")
        self.num_inference_steps = len(chosen)
        self.timesteps = chosen.to(device)

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """Scale a state to unit norm for the network; a bare number, which is no state, is left as it is."""
        return unit_norm(sample) if sample.ndim == 4 else sample

    def levels(self, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Signal and noise amplitudes at timesteps (B,), each (B, 1, 1, 1)."""
        alpha_bar = self.alphas_cumprod.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def add_noise(
        self,
        original_samples: torch.Tensor,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Noised states (B, 2, H, W), with diffusers' signature.

        Args:
            original_samples: (B, 2, H, W) clean states.
            noise: (B, 2, H, W) unit Gaussian; trajectories and scrambling circuits draw from `generator` instead.
            timesteps: (B,) training timesteps.
            generator: See above.

        Raises:
            ValueError: For `unravelling="none"`, which knows density matrices only.
        """
        if self.config.unravelling in UNRAVELLINGS:
            return mix(original_samples, noise, *self.levels(timesteps), self.config.unravelling)
        if self.config.unravelling == "none":
            raise ValueError("unravelling none has no pure states; use density(rho, t)")
        psi = to_states(original_samples)
        if self.config.channel == "scramble":
            return to_images(self._scramble(psi, timesteps, generator))
        strength = 1 - self.alphas_cumprod.to(psi.device)[timesteps]
        return to_images(trajectory(psi, self.config.channel, strength, generator))

    def density(self, rho: torch.Tensor, timestep: int) -> torch.Tensor:
        """Density matrices (B, d, d) after the exact channel at one timestep.

        Raises:
            ValueError: For scrambling, an average over random circuits without a closed form, or too many qubits.
        """
        strength = 1 - self.alphas_cumprod[timestep]
        if self.config.channel == "depolarizing":
            return depolarize(rho, strength.expand(len(rho)))
        if self.config.channel == "scramble":
            raise ValueError("scrambling is an average over random circuits, which has no closed form here")
        return kraus(rho, self.config.channel, strength.item())

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> QuantumChannelSchedulerOutput | tuple[torch.Tensor]:
        """One step towards clean states.

        Args:
            model_output: (B, 2, H, W) prediction of the clean state.
            timestep: One of `timesteps`.
            sample: (B, 2, H, W) the state at that timestep.
            generator: Draws the fresh noise of eta > 0; one a jet, or one for all.
            return_dict: Return a `QuantumChannelSchedulerOutput`; otherwise a tuple.

        Raises:
            NotImplementedError: For channels that cannot be run backwards from a start that can be drawn.
        """
        if self.config.unravelling not in UNRAVELLINGS:
            reason = ONE_WAY.get(self.config.channel, "its last states still depend on the jets: no start can be drawn")
            raise NotImplementedError(
                f"{self.config.channel} by {self.config.unravelling} has no reverse step: {reason}"
            )
        now = self.alphas_cumprod[int(timestep)].item()
        later = self.timesteps[self.timesteps < int(timestep)]
        then = self.alphas_cumprod[int(later[0])].item() if len(later) else 1.0
        x_0 = unit_norm(model_output)
        if now >= 1:
            return self._output(x_0, x_0, return_dict)
        epsilon = (sample - now**0.5 * x_0) / (1 - now) ** 0.5
        fresh = self.config.eta * ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
        x = then**0.5 * x_0 + max(0.0, 1 - then - fresh**2) ** 0.5 * epsilon
        if fresh:
            noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
            x = x + fresh * (haar_states(noise) if self.config.unravelling == "haar_mix" else real_noise(noise))
        return self._output(unit_norm(x) if self.config.unravelling == "haar_mix" else x, x_0, return_dict)

    def prior(self, noise: torch.Tensor, state: torch.Tensor | None = None) -> torch.Tensor:
        """States to start sampling from, as the configuration's `start` says.

        Args:
            noise: (B, 2, H, W) unit Gaussian, the only randomness.
            state: (2, H, W) or (B, 2, H, W), for start "state".

        Raises:
            ValueError: If a state is given where none is asked for, or the other way round.
        """
        start = self.config.start
        if (state is not None) != (start == "state"):
            raise ValueError(f"start {start!r} {'needs' if start == 'state' else 'takes no'} chosen state")
        if state is not None:
            return unit_norm(state.to(noise).expand_as(noise).contiguous())
        if start == "mixed":  # the largest of d draws lies anywhere alike
            which = noise[:, 0].flatten(1).argmax(1)
            basis = torch.nn.functional.one_hot(which, noise[0, 0].numel()).to(noise)
            return to_images(basis.to(torch.complex64))
        return haar_states(noise) if self.config.unravelling != "classical" else real_noise(noise)

    def _scramble(self, psi: torch.Tensor, timesteps: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        qubits, steps = num_qubits(psi), self.config.scramble_steps
        depth = (timesteps + 1) * steps // len(self)
        for step, size in enumerate(torch.linspace(1, 4, steps).tolist()):
            angles, coupling = scramble_angles(len(psi), qubits, size, generator)
            further = scramble(psi, angles.to(psi.device), coupling.to(psi.device))
            psi = torch.where((step < depth)[:, None], further, psi)
        return psi

    def _output(
        self, x: torch.Tensor, x_0: torch.Tensor, return_dict: bool
    ) -> QuantumChannelSchedulerOutput | tuple[torch.Tensor]:
        return QuantumChannelSchedulerOutput(x, x_0) if return_dict else (x,)
