"""Compare generated jets with real ones: run all metrics and collect them in a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.errors import UserError
from jet_diffusion.evaluation import sections
from jet_diffusion.evaluation.result import describe
from jet_diffusion.evaluation.show import JetEvaluation
from jet_diffusion.evaluation.tagger import add_tagger
from jet_diffusion.evaluation.two_sample import add_two_sample_tests
from jet_diffusion.metrics.integrity import check_units
from jet_diffusion.parallel import workers
from jet_diffusion.report.model import Report

if TYPE_CHECKING:
    from jet_diffusion.pipelines.jet_output import JetImagePipelineOutput

SIZE = 5_000
LEAST_JETS = 100


def evaluate_jets(
    real: JetSample,
    generated: JetSample | JetImagePipelineOutput,
    *,
    training: JetSample | None = None,
    size: int = SIZE,
    seed: int = 0,
    classifiers: Sequence[str] = ("observables", "voxels"),
    jobs: int | str = 1,
    tagger: bool = False,
    heading: dict[str, Any] | None = None,
    progress: bool = False,
) -> JetEvaluation:
    """Compare generated jets with real ones by all metrics; what cannot be computed is left out with its reason.

    Args:
        real: held-out real jets, twice `size` of them for baselines at full size.
        generated: generated jets, or what a pipeline returned.
        training: jets the generator was trained on, for memorisation; without them it is left out.
        size: jets a side; lowered to what there is.
        seed: of all draws.
        classifiers: names from `jet_diffusion.metrics.classifiers.CLASSIFIERS`.
        jobs: processes for the classifiers, or the address of a Dask cluster whose workers train them: a
            scheduler's, or `local:N`.
        tagger: whether to train quark/gluon taggers on real and on generated jets.
        heading: further entries of the report's heading.
        progress: whether to show bars.

    Returns:
        The results, with `.table()`, `.plot()` and `.to_html()`; a notebook shows their table.

    Raises:
        ConnectionError: if no Dask scheduler answers, or it goes away.
        UserError: if there are fewer than 100 jets a side, or jets are in another unit.
    """
    rng = np.random.default_rng(seed)
    if not isinstance(generated, JetSample):
        generated = JetSample.from_output(generated)
    size = _size(real, generated, size)
    check_units(real, generated)
    reference, second = real.split([size, size], rng)
    (generated,) = generated.split([size], rng)
    report = Report({"size": size, "seed": seed, **(heading or {})})
    result = JetEvaluation(report, reference, second, generated)
    for name, sample in (("real", real), ("generated", generated), ("training", training)):
        if sample is not None:
            report.heading[name] = describe(sample)
    with workers(jobs, progress=progress) as pool:
        steps = _steps(result, training, classifiers, rng, seed, pool)
        for name, step in (bar := tqdm(steps if tagger else steps[:-1], disable=not progress, unit="step")):
            bar.set_description(name)
            step()
    return result


def _steps(
    result: JetEvaluation,
    training: JetSample | None,
    classifiers: Sequence[str],
    rng: np.random.Generator,
    seed: int,
    pool: Any,
) -> list[tuple[str, Callable[[], None]]]:
    """The sections in order, taggers last: names and what computes them."""
    return [
        ("integrity", lambda: sections.add_integrity(result)),
        ("observables", lambda: _compute_observables(result.reference, result.second, result.generated)),
        ("headline metrics", lambda: sections.add_headline(result, rng)),
        ("classes", lambda: sections.add_classes(result, rng)),
        ("W1", lambda: sections.add_wasserstein(result, rng)),
        ("neighbours", lambda: sections.add_neighbours(result)),
        ("JetNet's variants", lambda: sections.add_jetnet(result)),
        ("closure", lambda: sections.add_closure(result, rng)),
        ("memorisation", lambda: sections.add_memorisation(result, training, rng)),
        ("classifiers", lambda: add_two_sample_tests(result, classifiers, seed, pool)),
        ("taggers", lambda: add_tagger(result, seed, pool)),
    ]


def _size(real: JetSample, generated: JetSample, size: int) -> int:
    """Jets a side, as many as there are."""
    size = min(size, len(generated), len(real) // 2)
    if size < LEAST_JETS:
        raise UserError(
            f"evaluation needs {2 * LEAST_JETS} real and {LEAST_JETS} generated jets at least, "
            f"got {len(real)} and {len(generated)}"
        )
    return size


def _compute_observables(*samples: JetSample) -> None:
    for sample in samples:
        _ = sample.observables
