"""Train and judge a base configuration with several seeds, then with one option changed at a time.

    python -m benchmarks.studies.ablate DATA REAL OUT [--rows benchmarks/studies/ablations.yaml] [--size 300] [--jobs 2]

DATA is a converted dataset, REAL held-out jets (HDF5 file or dataset), at least three times `--size` of them. The YAML
file names a configuration, options of all rows, the seeds of the base, and rows with options of their own. Every row is
sampled for the same conditions and from the same noise, and judged against the same real jets, so that what differs
between the base's seeds is what training does by chance. Writes ablations.md and ablations.json in OUT after every row;
what a row made is kept there, so a second call goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.studies.judged import read_judged
from jet_diffusion.io import file_stem, write_text_atomically
from jet_diffusion.parallel import dask_client
from jet_diffusion.precision import PRECISIONS
from jet_diffusion.runs import RunFolder
from jet_diffusion.schema import CHANNELS

ROOT = Path(__file__).parents[2]

METRICS = {
    "mean_w1": "mean W1",
    "fpd": "FPD",
    "auc_observables": "AUC",
    "mean_w1_image": "mean W1, image only",
    "fpd_image": "FPD, image only",
    "auc_image": "AUC, image only",
    "validation": "validation loss",
}
"""Columns with an error over the base's seeds; of all of them less is better."""

DIES_WITH_US = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
"""Runs a command that Linux kills when its parent dies: whoever does the row next must be the only one."""

LAST_WORDS = 500
"""Characters of a failed command's log that are repeated."""


@dataclass(frozen=True)
class Row:
    """One row of the YAML file.

    Attributes:
        name: in the table.
        options: of the training, after those of all rows.
        same_loss: whether its validation loss means the same as the base's.
        base: whether it is the base with one of its seeds.
    """

    name: str
    options: tuple[str, ...] = ()
    same_loss: bool = True
    base: bool = False

    @property
    def slug(self) -> str:
        """Its name as a file's."""
        return file_stem(self.name)


@dataclass(frozen=True)
class Ablation:
    """The YAML file: configuration and options that all rows share, and the rows, the base's first."""

    config: Path
    options: tuple[str, ...]
    rows: tuple[Row, ...]

    @classmethod
    def read(cls, path: Path) -> Ablation:
        """Read a YAML file.

        Raises:
            ValueError: for two rows of one name, or fewer than two seeds.
        """
        written = yaml.safe_load(path.read_text())
        if len(written["seeds"]) < 2:
            raise ValueError(f"{path}: seeds needs two or more, got {written['seeds']}")
        base = [Row(f"base, seed {seed}", (f"--seed={seed}",), base=True) for seed in written["seeds"]]
        own = [Row(**{**row, "options": tuple(row["options"])}) for row in written["rows"]]
        rows = (*base, *own)
        if len({row.slug for row in rows}) < len(rows):
            raise ValueError(f"{path}: rows must have different names, got {[row.name for row in rows]}")
        return cls(ROOT / written["config"], tuple(written["options"]), rows)


class Workshop:
    """Makes rows and keeps what they made.

    Args:
        ablation: the YAML file.
        options: the command line's.
    """

    def __init__(self, ablation: Ablation, options: argparse.Namespace) -> None:
        self.ablation, self.options = ablation, options
        (options.out / "runs").mkdir(parents=True, exist_ok=True)

    def make(self, row: Row) -> None:
        """Train and judge a row, unless it has been.

        Raises:
            ValueError: if it has been with other options.
            RuntimeError: if a command fails.
        """
        options, run, judged = self.options, self._run(row), self._judged(row)
        train = [f"--config={self.ablation.config}", f"--data={options.data}", *self.ablation.options, *row.options]
        judge = [options.real, f"--size={options.size}", f"--precision={options.precision}", f"--seed={options.seed}"]
        asked, begun = json.dumps([train, judge], indent=2) + "\n", options.out / f"{row.slug}.asked.json"
        if begun.is_file() and begun.read_text() != asked:
            raise ValueError(f"{row.name} was begun with other options, see {begun}; choose another OUT or remove it")
        write_text_atomically(begun, asked)
        if judged.is_file():
            return
        log = options.out / f"{row.slug}.log"
        logged([sys.executable, "-m", "jet_diffusion", "train", *train, f"--run-dir={run}", "--trackers=[]"], log)
        logged([sys.executable, "-m", "benchmarks.studies.judge", str(run), *judge, f"--out={judged}"], log)

    def made(self) -> dict[str, dict[str, Any]]:
        """Results of the rows that have been judged, by name."""
        return {row.name: self._results(row) for row in self.ablation.rows if self._judged(row).is_file()}

    def _results(self, row: Row) -> dict[str, Any]:
        folder = RunFolder.open(self._run(row))
        steps, losses = folder.read_metrics("train"), folder.read_metrics("validation")
        return read_judged(self._judged(row)) | {
            "name": row.name,
            "options": row.options,
            "jets_per_second": statistics.median(line["jets_per_second"] for line in steps),
            "validation": losses[-1]["loss"] if losses and row.same_loss else None,
        }

    def _run(self, row: Row) -> Path:
        return Path(self.options.out / "runs" / row.slug)

    def _judged(self, row: Row) -> Path:
        return Path(self.options.out / f"{row.slug}.json")


def logged(command: Sequence[str], log: Path) -> None:
    """Run a command that writes to a log.

    Raises:
        RuntimeError: if it fails, with the end of the log.
    """
    with open(log, "a") as file:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        tied = [sys.executable, "-c", DIES_WITH_US, *command]
        code = subprocess.run(tied, check=False, stdout=file, stderr=file, env=environment).returncode
    if code:
        raise RuntimeError(f"exit status {code}; {log} ends with: {log.read_text()[-LAST_WORDS:]}")


@contextmanager
def rows_at_a_time(options: argparse.Namespace) -> Iterator[Executor]:
    """Threads that wait for a row each, or Dask's workers, which see the same files under the same names."""
    if options.dask is None:
        with ThreadPoolExecutor(options.jobs) as pool:
            yield pool
    else:
        with dask_client(options.dask) as client:
            yield client.get_executor(pure=False)


def table(rows: Sequence[Row], made: dict[str, dict[str, Any]]) -> str:
    """Tabulate the rows made so far; in brackets the distance from the base in standard deviations of its seeds."""
    base = [made[row.name] for row in rows if row.base and row.name in made]
    spread: dict[str, tuple[float, float]] = {}
    for key in METRICS if len(base) > 1 else ():
        values = [row[key] for row in base if row.get(key) is not None]  # few jets have no AUC
        if len(values) == len(base):
            spread[key] = statistics.mean(values), statistics.stdev(values)
    header = ["row", "jets seen", "jets/s", *METRICS.values(), "spread", f"occupancy {' / '.join(CHANNELS)}", "options"]
    lines = [header, [" --- "] * len(header)]
    for row in rows:
        if row.name not in made:
            continue
        results = made[row.name]
        seen = results.get("training_jets")  # not known of weights that began with another's
        cells = [row.name, "-" if seen is None else f"{seen:,}", f"{results['jets_per_second']:.1f}"]
        cells += [cell(results.get(key), None if row.base else spread.get(key)) for key in METRICS]
        cells += [f"{statistics.median(results['spread'].values()):.2f}"]
        cells += [" / ".join(f"{results[f'occupancy_{channel}']:.2f}" for channel in CHANNELS)]
        lines.append([*cells, f"`{' '.join(row.options)}`"])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    seeds = ", ".join(
        f"{name} {spread[key][0]:.4g} ± {spread[key][1]:.2g}" for key, name in METRICS.items() if key in spread
    )
    baselines = {name: base[0].get(f"{key}_baseline") for key, name in METRICS.items() if base}
    known = ", ".join(f"{name} {baseline:.3g}" for name, baseline in baselines.items() if baseline is not None)
    precisions = ", ".join(sorted({row.get("precision", "that is not recorded") for row in made.values()}))
    return (
        f"{text}\n\nThe base, mean and standard deviation over its seeds: {seeds}. "
        f"Baselines, real jets against other real jets: {known}.\n"
        "In brackets: difference from the base's mean in those deviations. "
        "Spread: median over the observables of the generated jets' central width over the real ones'. "
        f"Sampled in precision {precisions}.\n"
    )


def cell(value: float | None, spread: tuple[float, float] | None) -> str:
    """Format a number, with its distance from the base in standard deviations."""
    if value is None:
        return "-"
    if spread is None or not spread[1]:
        return f"{value:.4g}"
    return f"{value:.4g} ({(value - spread[0]) / spread[1]:+.1f})"


def main() -> None:
    """Ablate as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder made by `jet-diffusion convert`")
    parser.add_argument("real", help="held-out jets: HDF5 file or converted dataset")
    parser.add_argument("out", type=Path, help="folder of the table and of all that is kept")
    parser.add_argument("--rows", type=Path, default=Path(__file__).with_name("ablations.yaml"))
    parser.add_argument("--only", nargs="+", help="names of the rows to make")
    parser.add_argument("--size", type=int, default=300, help="jets of each row (default 300)")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of sampling (default auto)")
    parser.add_argument("--seed", type=int, default=0, help="of the jets drawn and sampled (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time, each a process of one core (default 1)")
    parser.add_argument("--dask", help="a Dask cluster whose workers make the rows: a scheduler's address, or local:N")
    options = parser.parse_args()
    ablation = Ablation.read(options.rows)
    names = [row.name for row in ablation.rows]
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"--only names {sorted(unknown)}; there are {names}")
    workshop = Workshop(ablation, options)
    failed = False
    with rows_at_a_time(options) as pool:
        running = {pool.submit(workshop.make, row): row for row in ablation.rows if row.name in (options.only or names)}
        for number, future in enumerate(as_completed(running), 1):
            error = future.exception()
            failed |= error is not None
            print(f"{running[future].name}: {error or 'done'} ({number} of {len(running)})", flush=True)
            made = workshop.made()
            write_text_atomically(options.out / "ablations.md", table(ablation.rows, made))
            write_text_atomically(options.out / "ablations.json", json.dumps(made, indent=2) + "\n")
    print((options.out / "ablations.md").read_text())
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
