"""`jet-diffusion publish RUN --repo user/name`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jet_diffusion.arguments import Scheduler
from jet_diffusion.commands import require_repo
from jet_diffusion.errors import UserError, require_least


@dataclass
class Options:
    """Write a training run's model, card, pictures and report into a folder, and push it to the Hub.

    The token comes from `hf auth login` or the environment.

    Attributes:
        run: Folder of a training run.
        repo: Repository on the Hub, user/name.
        folder: Folder to write; RUN/published if you omit it.
        checkpoint: Checkpoint to publish: last, best or a step.
        licence: Licence of the weights.
        scheduler: Publish with this solver; the run's own if you omit it.
        steps: Publish with this number of solver steps; the run's own number if you omit it.
        step_power: Publish with this spacing of the steps; the run's own if you omit it.
        moment_guidance: Publish with the guidance in this file, made by `jet-diffusion fit-guidance`.
        space: Also make a Space, user/name: a page in the browser where anybody can make jets of the model.
        private: Make what does not exist yet private.
        dry_run: Write the folder and push nothing.
    """

    run: Path
    repo: str = field(kw_only=True)
    folder: Path | None = None
    checkpoint: str = "last"
    licence: Literal["apache-2.0", "mit", "cc-by-4.0", "bsd-3-clause", "other"] = "apache-2.0"
    scheduler: Scheduler | None = None
    steps: int | None = None
    step_power: float | None = None
    moment_guidance: Path | None = None
    space: str | None = None
    private: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_least(self, steps=1)
        require_repo("--repo", self.repo)
        require_repo("--space", self.space)
        if self.private and self.dry_run:
            raise UserError("--private is of what is pushed, and --dry-run pushes nothing; give one of them")


def main(options: Options) -> None:
    """Stage, and push if asked to."""
    from jet_diffusion.runs import RunFolder

    run = RunFolder.open(options.run)
    from jet_diffusion.repositories import push_folder, require_writable
    from jet_diffusion.workflows.browser.space import stage_space
    from jet_diffusion.workflows.stage import stage

    if not options.dry_run:
        require_writable(options.repo, "model", "--dry-run writes the folder alone")
        if options.space:
            require_writable(options.space, "space", "--dry-run writes the folder alone")

    page = options.space and stage_space(run.path / "space", options.space, options.repo, options.licence)
    folder = stage(
        run,
        options.folder or run.path / "published",
        options.repo,
        checkpoint=options.checkpoint,
        licence=options.licence,
        sampler={"scheduler": options.scheduler, "steps": options.steps, "step_power": options.step_power},
        guidance=options.moment_guidance,
    )
    sys.stdout.write(f"staged in {folder}\n")
    if not options.dry_run:
        address = push_folder(folder, options.repo, "model", "Publish jet diffusion pipeline", private=options.private)
        sys.stdout.write(f"published at {address}\n")
    if options.space and page:
        sys.stdout.write(f"page staged in {page}\n")
        if not options.dry_run:
            address = push_folder(page, options.space, "space", "Publish page", private=options.private)
            sys.stdout.write(f"page at {address}\n")
