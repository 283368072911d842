"""PosteriorScheduler: ancestral sampling with jets drawn from each pixel's posterior, not replaced by its mean.

This file is self-contained so that it can travel to the Hub.
"""

from __future__ import annotations

from typing import ClassVar

from diffusers import DDPMScheduler


class PosteriorScheduler(DDPMScheduler):
    """DDPM's step q(x_s | x_t, x_0) with x_0 drawn from p(x_0 | x_t), pixel by pixel, for denoisers that know it.

    The step back is p(x_s | x_t) = E[q(x_s | x_t, x_0)] over that posterior. DDPM puts its mean in the place of x_0 and
    so leaves out the posterior's variance: nothing in a thousand short steps, but too cold in 25 long ones. The optimal
    Gaussian (Analytic-DPM, Bao et al., arXiv:2201.06503) has the right variance; a spike and slab knows the whole
    distribution of a pixel, so that here each pixel's step is exact, and only what pixels say of one another within one
    step is left out. The last step, at little noise, takes the mean. `variance_type` must be fixed_small, q's own.
    """

    draws_x_0: ClassVar[bool] = True
    """Asks the pipeline for a drawn x_0 at every step but the last."""
