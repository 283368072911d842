"""Guard against judging a model by jets it was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.errors import UserError
from jet_diffusion.observables.hits import Array
from jet_diffusion.repositories import fetch
from jet_diffusion.runs import TRAINING_JETS


def find_training_hashes(model: str | Path) -> Array | None:
    """Content hashes of a model's training jets, from its run, its folder or the Hub; None if it carries none.

    Raises:
        UserError: if the file is no list of hashes.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        try:
            folder = fetch(str(model), "model", [TRAINING_JETS])
        except OSError:  # the report says that they are not known
            return None
    file = folder / TRAINING_JETS
    return read_hashes(file) if file.is_file() else None


def read_hashes(path: Path) -> Array:
    """Read a file of content hashes; nothing is unpickled.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it holds anything but one row of unsigned 64-bit numbers.
    """
    try:
        hashes = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is no file of content hashes: {error}") from error
    if hashes.ndim != 1 or hashes.dtype != np.uint64:
        raise UserError(f"{path} must hold (N,) uint64 content hashes, not {hashes.dtype} of shape {hashes.shape}")
    return np.asarray(hashes)


def refuse_training_jets(real: JetSample, hashes: Array | None, allowed: bool) -> str | None:
    """Refuse real jets whose hashes are among those of the training jets.

    Args:
        real: the evaluation set, with its content hashes.
        hashes: of the training jets; None if they are not known.
        allowed: whether training jets among the real ones are let through.

    Returns:
        What the report must say first, or None if none of the real jets was trained on.

    Raises:
        UserError: if any was and that is not allowed.
    """
    if hashes is None or real.content_hash is None:
        return (
            "it is not known which jets the model was trained on: some of the real ones may be among them; "
            "--training-hashes MODEL/training_jets.npy tells"
        )
    held = int(np.isin(real.content_hash, hashes).sum())
    if not held:
        return None
    if not allowed:
        raise UserError(
            f"{held} of the {len(real)} real jets of {real.source} were used in training; choose held-out jets, or "
            "--allow-training-jets to evaluate all the same"
        )
    return f"{held} of the {len(real)} real jets were used in training: no figure below speaks of unseen jets"
