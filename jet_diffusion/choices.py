"""What options may be where the table of it takes long to import; tests compare both."""

from typing import Literal

Scheduler = Literal["ddpm", "ddpm-large", "ddim", "dpm++", "sde-dpm++", "unipc", "euler"]
"""Names of `jet_diffusion.pipelines.schedulers.SCHEDULERS`."""

Precision = Literal["auto", "no", "bf16"]
"""`jet_diffusion.precision.PRECISIONS`."""
