"""JetImagePipeline: calorimeter images of quark and gluon jets from noise, through any diffusers scheduler.

On the Hub this file is `pipeline.py`, which also contains what it imports from its folder here. Representation,
denoiser, conditioner and first stage are components that save themselves. The pipeline knows them by their methods
alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin, UNet2DModel
from diffusers.utils import logging

from .hub_sources import OwnSourcesMixin  # noqa: TID251
from .jet_output import OUTPUT_TYPES, JetImagePipelineOutput, as_images, scale_to_sums, to_host  # noqa: TID251
from .moment_guidance import MomentGuidance  # noqa: TID251
from .random_numbers import RandomNumbers  # noqa: TID251
from .schedulers import check_scheduler, check_timesteps, noise_of_steps, set_timesteps  # noqa: TID251

logger = logging.get_logger(__name__)

CPU_BATCH_SIZE, GPU_BATCH_SIZE = 16, 256
"""Jets denoised at once. On a CPU the reference model takes 1.4 times as long for a jet in batches of 64."""


def batch_size_on(device: torch.device, asked: int | None) -> int:
    """Jets denoised at once: as many as asked for, else by the device alone, so that an interrupted run can go on."""
    usual = CPU_BATCH_SIZE if device.type == "cpu" else GPU_BATCH_SIZE
    return usual if asked is None else asked


class JetImagePipeline(OwnSourcesMixin, DiffusionPipeline):
    """Samples 3-channel jet images (tracks, ECAL, HCAL) at native resolution.

    Args:
        unet: The network.
        scheduler: Any scheduler whose alphas are the training ones, with `prediction_type="sample"`.
        representation: Decodes model space into energies.
        denoiser: Turns x_t and the network's output into x_0; knows the training noise schedule.
        conditioner: Embeds class, pT, mass and ring sums for the network; None if unconditional.
        first_stage: Draws the conditions that are not given; None if unconditional.
        provenance: One line on the jets it was trained on, repeated wherever the model is shown.
        step_power: Timesteps fall as (1 - i / steps)^step_power, where the scheduler lets us choose them: above 1 they
            lie closer at low noise, where the energies of hits are settled. 1 spreads them as the scheduler does.
        default_steps: Solver steps of a call that does not name their number.
        moment_guidance: Strengths, variances and ratios of a `MomentGuidance`, with which jets differ in shape as much
            as real ones do; none by default.
    """

    _optional_components = ["conditioner", "first_stage"]  # noqa: RUF012
    _guidance: tuple[tuple[str, torch.device], MomentGuidance | None] | None = None

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        representation: SchedulerMixin,
        denoiser: ModelMixin,
        conditioner: ModelMixin | None,
        first_stage: ModelMixin | None = None,
        provenance: str = "",
        step_power: float = 1.0,
        default_steps: int = 25,
        moment_guidance: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            unet=unet,
            scheduler=scheduler,
            representation=representation,
            denoiser=denoiser,
            conditioner=conditioner,
            first_stage=first_stage,
        )
        self.register_to_config(
            provenance=provenance, step_power=step_power, default_steps=default_steps, moment_guidance=moment_guidance
        )
        self.check_moment_guidance()

    @torch.no_grad()
    def __call__(  # noqa: PLR0913
        self,
        num_jets: int | None = None,
        labels: int | str | Sequence[int | str] | None = None,
        pt: float | Sequence[float] | None = None,
        m0: float | Sequence[float] | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        *,
        ring_sums: torch.Tensor | None = None,
        timesteps: list[int] | None = None,
        first_jet: int = 0,
        batch_size: int | None = None,
        clip_sample: bool = True,
        guidance_scale: float = 1.0,
        output_type: str = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, int, dict[str, Any]], dict[str, Any]] | None = None,
    ) -> JetImagePipelineOutput:
        """Generate jets.

        Args:
            num_jets: How many; by default as many as conditions are given, or one.
            labels: 0 or "gluon", 1 or "quark": one for all or one a jet. Conditions you omit are drawn jointly,
                given those that you give.
            pt, m0: Transverse momentum and mass in GeV, one for all or one a jet.
            num_inference_steps: Solver steps, one network evaluation each; by default the model's own number.
            generator: A seeded generator makes the call repeatable: jet i depends on its seed and i alone, not on
                the jets beside it, nor on the batch size but for rounding, which may flip a hit. A list gives each
                jet its own.
            ring_sums: For models conditioned on them: (N, 2 rings) hit counts of the rings of tracks, ECAL and HCAL
                and their energies in GeV, as `representation.ring_sums` gives them; NaN, or by default all, for what
                is to be drawn.
            timesteps: Training timesteps to step through, for schedulers that accept them.
            first_jet: Index of the first jet in the seed's sequence; processes share a seed by it.
            batch_size: Jets denoised at once, by default 16 on a CPU and 256 on a GPU; a last smaller batch is padded
                to it.
            clip_sample: Clip predicted x_0 to the range seen in training before each step, and raise the hits of the
                last one to the smallest seen, before their energies are scaled to the ring sums.
            guidance_scale: Classifier-free guidance for models trained with condition dropping; 1 is none.
            output_type: "np", "pt" or "pil".
            return_dict: Return a `JetImagePipelineOutput`; otherwise its fields as a tuple.
            callback_on_step_end: Called as (pipeline, step, timestep, {"x", "x0"}) after each step of each batch;
                an "x" in the dictionary it returns replaces the state.

        Raises:
            ValueError: For any argument out of range, before any work.
        """
        num_inference_steps = self.config.default_steps if num_inference_steps is None else num_inference_steps
        batch_size = batch_size_on(self.unet.device, batch_size)
        count, given = self.check_inputs(num_jets, labels, pt, m0, num_inference_steps, batch_size, output_type)
        self.check_scheduler()
        self.check_moment_guidance()
        random = RandomNumbers.of_generators(generator, first_jet, count, self.unet.device)
        self._check_guidance(guidance_scale)
        check_timesteps(timesteps, self.denoiser)
        conditions = self._conditions(random, given, ring_sums)
        batch_size = min(batch_size, count)
        made = []
        with self.progress_bar(total=-(-count // batch_size) * num_inference_steps) as progress:
            for start in range(0, count, batch_size):
                rows = torch.arange(start, start + batch_size, device=self.unet.device).clamp(max=count - 1)
                batch, asked = random[rows], [column[rows] for column in conditions]
                self._set_timesteps(num_inference_steps, timesteps)
                x, clipped = self._denoise(
                    self._noise(batch) * self.scheduler.init_noise_sigma,
                    asked,
                    batch,
                    self.scheduler.timesteps,
                    clip_sample=clip_sample,
                    guidance_scale=guidance_scale,
                    callback=callback_on_step_end,
                    progress=progress,
                )
                energies = scale_to_sums(self.representation.decode(x, batch), asked[3])
                columns = [column[: count - start] for column in (*asked[:3], clipped)]  # the padding is nobody's
                made.append(to_host(energies[: count - start], columns))
        images = [jets for jets, _ in made]
        known = [torch.cat(parts).numpy() for parts in zip(*(columns for _, columns in made), strict=True)]
        output = JetImagePipelineOutput(
            images=as_images(images[0] if len(images) == 1 else torch.cat(images), output_type),
            labels=known[0].astype(np.int64),
            pt=known[1],
            m0=known[2],
            clipped_fraction=float(known[3].mean()),
        )
        return output if return_dict else output.to_tuple()

    @torch.no_grad()
    def reconstruct(
        self,
        energies: torch.Tensor,
        timestep: int,
        labels: torch.Tensor | None = None,
        pt: torch.Tensor | None = None,
        m0: torch.Tensor | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        batch_size: int | None = None,
        callback_on_step_end: Callable[[Any, int, int, dict[str, Any]], dict[str, Any]] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise given jets to a training timestep and denoise them again.

        Args:
            energies: (N, 3, 125, 125) in GeV/100.
            timestep: How far to noise, 0 to T - 1. Schedulers that choose their own timesteps (DDIM, UniPC) start
                from their highest one at or below it, or from their lowest.
            labels, pt, m0: (N,) conditions; what is left out is drawn. A model conditioned on ring sums is given
                those of the jets.
            num_inference_steps: Steps of the whole schedule, by default the model's own number; those above
                `timestep` are skipped.
            generator: As in `__call__`.
            batch_size: As in `__call__`.
            callback_on_step_end: As in `__call__`.

        Returns:
            Denoised energies and the noisy x decoded as it stands, each (N, 3, 125, 125).
        """
        total = len(self.denoiser.alphas_cumprod)
        if not 0 <= timestep < total:
            raise ValueError(f"timestep must be 0 to {total - 1}, got {timestep}")
        self.check_scheduler()
        num_inference_steps = self.config.default_steps if num_inference_steps is None else num_inference_steps
        batch_size = batch_size_on(self.unet.device, batch_size)
        random = RandomNumbers.of_generators(generator, 0, len(energies), self.unet.device)
        conditions = self._conditions(random, (labels, pt, m0), self._ring_sums_of(energies))
        clean, noisy = [], []
        for start in range(0, len(energies), batch_size):
            rows = slice(start, start + batch_size)
            self._set_timesteps(num_inference_steps, highest=timestep)
            begin = min(int((self.scheduler.timesteps > timestep).sum()), len(self.scheduler.timesteps) - 1)
            x_0 = self.representation.encode(energies[rows].to(self.unet.device))
            begun = self.scheduler.timesteps[begin]
            x_t = self.denoiser.add_noise(x_0, self._noise(random[rows]), _filled(begun, x_0))
            noisy.append(self.representation.decode(x_t).cpu())
            if hasattr(self.scheduler, "set_begin_index"):
                self.scheduler.set_begin_index(begin)
            # Schedulers in sigma's own scaling (Euler) hold x_t / alpha.
            scale = self.scheduler.scale_model_input(torch.ones(()), begun)
            x, _ = self._denoise(
                x_t / scale,
                [column[rows] for column in conditions],
                random[rows],
                self.scheduler.timesteps[begin:],
                callback=callback_on_step_end,
            )
            clean.append(self.representation.decode(x).cpu())
        return torch.cat(clean), torch.cat(noisy)

    def check_inputs(
        self,
        num_jets: int | None,
        labels: Any,
        pt: Any,
        m0: Any,
        num_inference_steps: int,
        batch_size: int,
        output_type: str,
    ) -> tuple[int, tuple[torch.Tensor | None, ...]]:
        """The number of jets and the given conditions as (N,) tensors; raises ValueError for any bad argument."""
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type must be one of {OUTPUT_TYPES}, got {output_type!r}")
        for name, value in (("num_inference_steps", num_inference_steps), ("batch_size", batch_size)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive whole number, got {value!r}")
        if num_inference_steps > len(self.denoiser.alphas_cumprod):
            raise ValueError(
                f"num_inference_steps must be at most the {len(self.denoiser.alphas_cumprod)} training timesteps, "
                f"got {num_inference_steps}"
            )
        if num_jets is not None and (not isinstance(num_jets, int) or num_jets < 1):
            raise ValueError(f"num_jets must be a positive whole number, got {num_jets!r}")
        if self.conditioner is None and any(value is not None for value in (labels, pt, m0)):
            raise ValueError("this model is unconditional: labels, pt and m0 cannot be chosen")
        given = (None, None, None) if self.conditioner is None else self.conditioner.parse(labels, pt, m0)
        lengths = {
            name: len(v) for name, v in zip(("labels", "pt", "m0"), given, strict=True) if v is not None and v.ndim
        }
        if num_jets is not None:
            lengths["num_jets"] = num_jets
        if len(set(lengths.values())) > 1:
            raise ValueError("lengths differ: " + ", ".join(f"{name} {n}" for name, n in lengths.items()))
        count = next(iter(lengths.values()), 1)
        if count < 1:
            raise ValueError("no jets asked for: the conditions given are empty")
        return count, tuple(None if v is None else v.expand(count) for v in given)

    def check_scheduler(self) -> None:
        """Refuse a scheduler whose alphas are not the training ones, or that does not take x_0.

        Raises:
            ValueError: Saying what is wrong.
        """
        check_scheduler(self.scheduler, self.denoiser)

    def _check_guidance(self, guidance_scale: float) -> None:
        if guidance_scale == 1:
            return
        if self.conditioner is None or not self.conditioner.dropped.any():
            raise ValueError(
                f"guidance_scale {guidance_scale} needs a model trained with conditions dropped now and then "
                "(optimizer.condition_drop); this one was not"
            )
        if not math.isfinite(guidance_scale):
            raise ValueError(f"guidance_scale must be finite, got {guidance_scale}")

    def _conditions(
        self,
        random: RandomNumbers,
        given: tuple[torch.Tensor | None, ...],
        ring_sums: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        count, device = len(random), self.unet.device
        known = 0 if self.conditioner is None else self.conditioner.num_ring_sums
        if ring_sums is not None and not known:
            raise ValueError("this model is not conditioned on ring sums: they cannot be chosen")
        if ring_sums is not None and tuple(ring_sums.shape) != (count, known):
            raise ValueError(f"ring_sums must be ({count}, {known}), got {tuple(ring_sums.shape)}")
        if self.conditioner is None:
            unknown = torch.full((count,), torch.nan, device=device)
            return torch.full((count,), -1, device=device), unknown, unknown, torch.zeros(count, 0, device=device)
        on_host = (None if column is None else column.cpu() for column in (*given, ring_sums))
        return self.first_stage.draw(random, *on_host)

    def _ring_sums_of(self, energies: torch.Tensor) -> torch.Tensor | None:
        known = self.conditioner is not None and self.conditioner.num_ring_sums
        return self.representation.ring_sums(energies) if known else None

    def _noise(self, random: RandomNumbers) -> torch.Tensor:
        return random.normal("start", self.representation.shape)

    def _set_timesteps(self, steps: int, timesteps: list[int] | None = None, highest: int | None = None) -> None:
        set_timesteps(self.scheduler, self.denoiser, steps, timesteps, power=self.config.step_power, highest=highest)

    def check_moment_guidance(self) -> None:
        """Refuse moment guidance that makes no sense, or for which the model does not know hits and energies.

        Raises:
            ValueError: Saying what is wrong.
        """
        settings = self.config.moment_guidance
        if settings is None:
            return
        if not isinstance(settings, dict) or set(settings) != {"strengths", "variances", "ratios"}:
            raise ValueError(f"moment guidance has strengths, variances and ratios, got {settings!r:.100}")
        if self.denoiser.config.get("energy_line") is None:
            raise ValueError("moment guidance needs a spike-and-slab denoiser, which knows the energies of hits")
        self._make_guidance()

    def _make_guidance(self) -> MomentGuidance | None:
        """Moment guidance by the configuration, made once for each device."""
        wanted = repr(self.config.moment_guidance), self.unet.device
        if self._guidance is None or self._guidance[0] != wanted:
            guidance = None
            if self.config.moment_guidance is not None:
                positions = self.representation.positions().to(torch.float32).to(self.unet.device)
                guidance = MomentGuidance(positions, **self.config.moment_guidance)
            self._guidance = wanted, guidance
        return self._guidance[1]

    def _denoise(
        self,
        x: torch.Tensor,
        conditions: list[torch.Tensor],
        random: RandomNumbers,
        timesteps: torch.Tensor,
        *,
        clip_sample: bool = True,
        guidance_scale: float = 1.0,
        callback: Callable[..., dict[str, Any]] | None = None,
        progress: Any = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Step from x at the first timestep down to x_0; also (N,) the share of each jet's values that were clipped.

        Nothing in here waits for the device: timesteps are read on the CPU, and noise is drawn where x is.
        """
        embedding = None if self.conditioner is None else self.conditioner(*conditions)
        ring_sums = conditions[3] if conditions[3].shape[1] else None
        low, high = (limit.view(-1, 1, 1) for limit in self.representation.limits(x.device))
        mask = self.representation.mask(x.device)
        clipped = torch.zeros(len(x), device=x.device)
        # In a schedule of tiny betas alpha_bar rounds to 1 at the first timesteps: no noise, and no step's 0 / 0.
        timesteps = timesteps[self.denoiser.alphas_on_host[timesteps.long()] < 1]
        noise, guidance = noise_of_steps(self.scheduler, random, x.shape[1:]), self._make_guidance()
        for step, timestep in enumerate(timesteps):
            x_t = self.scheduler.scale_model_input(x, timestep)
            batch_timesteps = _filled(timestep, x)
            denoiser_args = (self.unet, x_t, batch_timesteps, embedding, ring_sums)
            shift: torch.Tensor | float = 0.0
            if guidance is None or not guidance.acts_at(*map(float, self.denoiser.noise_level(timestep[None]))):
                output = self.denoiser(*denoiser_args)
            else:
                output, shift = guidance(self.denoiser, *denoiser_args)
            if guidance_scale != 1:
                dropped = self.conditioner.dropped.expand_as(embedding)
                unconditional = self.denoiser(self.unet, x_t, batch_timesteps, dropped)
                output = self.denoiser.guided(output, unconditional, guidance_scale)
            x0_for_step = output.x0 + shift
            if clip_sample:
                # Of the model's own x_0: moment guidance takes many a pixel below zero by a millionth of a hit.
                outside = (output.x0 < low) | (output.x0 > high)
                clipped += (outside & mask).sum((1, 2, 3))
                x0_for_step = x0_for_step.clamp(low, high)
            x = self.scheduler.step(x0_for_step, timestep, x, return_dict=False, **noise(step))[0]
            if callback is not None:
                x = (callback(self, step, timestep, {"x": x, "x0": x0_for_step}) or {}).get("x", x)
            if progress is not None:
                progress.update()
        x = self.representation.snap_to_min_hit(x) if clip_sample else x
        return x, clipped / max(1, len(timesteps) * x.shape[1] * int(self.representation.mask().sum()))


def _filled(timestep: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(N,) that timestep, from the CPU, for each jet of x."""
    return torch.full((len(x),), timestep.item(), dtype=timestep.dtype, device=x.device)
