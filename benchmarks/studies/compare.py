"""Compare generators of jets in one table, from the mean image to ours, all judged alike.

    python -m benchmarks.studies.compare DATA OUT [--rows benchmarks/studies/compare.yaml] [--size 300]

DATA is a converted dataset. Every row of the YAML file is trained (or taken from a run that exists), sampled, and
judged against real jets put through the same reduction. Writes compare.json, compare.md, compare.html and a panel of
jets, compare.png. What a row made is kept in OUT, so a second call goes on where the first stopped. `seconds` is a
row's training time; without it a model trains for the steps of its configuration.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from scipy.sparse import load_npz, save_npz

from benchmarks.studies.comparison import Candidate, judge
from benchmarks.studies.comparison_files import write_comparison
from jet_diffusion.data.jet_set import JetSample
from jet_diffusion.data.load import load_jets
from jet_diffusion.hub import load_pipeline
from jet_diffusion.io import file_stem
from jet_diffusion.metrics.perturbations import blank, mean_image
from jet_diffusion.pipelines.jet_image_pipeline import JetImagePipeline
from jet_diffusion.runs import RunFolder
from jet_diffusion.sampling.sample import sample_like
from jet_diffusion.training.build import count_parameters

ROOT = Path(__file__).parents[2]
PROBE_STEPS = 5
"""Steps after which the speed is known from which the number of steps in `seconds` follows."""


@dataclass(frozen=True)
class RowSettings:
    """One row of the YAML file; exactly one of run, config, peer, control or jets_of says where its jets come from.

    Attributes:
        name: in the table.
        run: a training run that exists.
        config: a configuration to train.
        peer: a script beside this one.
        control: "blank image", "mean image" or "independent real jets".
        jets_of: another row, whose jets are taken again (for another reduction).
        reduced_by: the row whose representation real and generated jets go through; by default a model's own.
        options: further options of the training or the peer.
        seconds: training time; without it the configuration's steps, or the peer's.
        steps: sampling steps; by default the model's own.
        size: jets sampled, or taken of another row's; by default the command's, or all of them.
    """

    name: str
    run: str | None = None
    config: str | None = None
    peer: str | None = None
    control: str | None = None
    jets_of: str | None = None
    reduced_by: str | None = None
    options: tuple[str, ...] = ()
    seconds: float | None = None
    steps: int | None = None
    size: int | None = None


CONTROLS: dict[str, Callable[[JetSample, JetSample, np.random.Generator], JetSample]] = {
    "independent real jets": lambda conditions, other, rng: other,
    "mean image": lambda conditions, other, rng: mean_image(conditions, rng),
    "blank image": lambda conditions, other, rng: blank(conditions, rng),
}
"""Name -> (jets whose conditions count, other real jets, random generator) -> jets."""


class Comparison:
    """Makes and judges the rows.

    Args:
        data: a converted dataset.
        out: folder of everything that is kept.
        size: jets of each row.
        seed: of draws and samples.
    """

    def __init__(self, data: str, out: Path, size: int, seed: int) -> None:
        self.data, self.out, self.size, self.seed = data, out, size, seed
        out.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        real = load_jets(data, None, rng, split="test")
        if len(real) < 4 * size:
            raise ValueError(f"--size {size} needs {4 * size} jets in the test split, there are {len(real)}")
        self.conditions, self.other, self.real = real.split([size, size, len(real) - 2 * size], rng)
        self.training = load_jets(data, len(self.real), rng, split="train")
        self.pipelines: dict[str, JetImagePipeline] = {}
        self.candidates: dict[str, Candidate] = {}

    def candidate(self, row: RowSettings) -> Candidate:
        """The row's jets and cost, made or found.

        Raises:
            ValueError: if the row asks for more jets than there are.
        """
        reducer = self.pipelines.get(row.reduced_by or "")
        if row.control:
            jets = _first(CONTROLS[row.control](self.conditions, self.other, np.random.default_rng(self.seed)), row)
            found = Candidate(row.name, jets, {}, reducer, reduce_jets=True)
        elif row.jets_of:
            source = self.candidates[row.jets_of]
            jets = _first(source.jets, row)
            excerpt = len(jets) < len(source.jets) and reducer is source.reducer
            found = Candidate(row.name, jets, source.cost, reducer, reduce_jets=True, excerpt=excerpt)
        elif row.peer:
            found = Candidate(row.name, *self._peer(row), reducer)
        else:
            pipeline = self.pipelines[row.name] = self._model(row)
            jets, cost = self._sampled(row, pipeline)
            lossy = not pipeline.representation.lossless
            found = Candidate(row.name, jets, cost, reducer or (pipeline if lossy else None))
        self.candidates[row.name] = found
        return found

    def _model(self, row: RowSettings) -> JetImagePipeline:
        """Train the row's configuration, unless it is a run that exists."""
        if row.run:
            return load_pipeline(row.run)
        run, settings = self._folder(row), yaml.safe_load((ROOT / str(row.config)).read_text())
        fixed = [f"--config={ROOT / str(row.config)}", f"--data={self.data}", f"--run-dir={run}", "--trackers=[]"]
        steps = settings["max_steps"]
        if row.seconds:
            if not RunFolder(run).begun:
                self._train([*fixed, *row.options, f"--max_steps={PROBE_STEPS}"])
            speed = RunFolder(run).read_metrics("train")[0]["jets_per_second"]
            steps = max(PROBE_STEPS, round(row.seconds * speed / RunFolder(run).read_config()["batch_size"]))
        self._train([*fixed, *row.options, f"--max_steps={steps}"])
        return load_pipeline(run)

    def _train(self, arguments: list[str]) -> None:
        subprocess.run([sys.executable, "-m", "jet_diffusion", "train", *arguments], check=True)

    def _sampled(self, row: RowSettings, pipeline: JetImagePipeline) -> tuple[JetSample, dict[str, Any]]:
        kept = self._folder(row, "jets")
        conditions = _first(self.conditions, row)
        run = RunFolder.open(row.run or self._folder(row))
        if not kept.with_suffix(".json").is_file():
            steps = row.steps or pipeline.config.default_steps
            pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
            sampled = sample_like(pipeline, conditions, steps=steps, seed=self.seed, source=row.name, progress=True)
            save_npz(kept.with_suffix(".npz"), sampled.jets.voxels)
            facts = {"ms_per_jet": sampled.ms_per_jet, "evaluations": sampled.evaluations}
            kept.with_suffix(".json").write_text(json.dumps(facts))
        cost = json.loads(kept.with_suffix(".json").read_text()) | training_cost(run, pipeline)
        return conditions.with_voxels(load_npz(kept.with_suffix(".npz")).tocsr()), cost

    def _peer(self, row: RowSettings) -> tuple[JetSample, dict[str, Any]]:
        """Run the peer's command; its file says what it cost."""
        from jet_diffusion.data.hdf5 import QuarkGluonFile

        file = self._folder(row, "jets").with_suffix(".hdf5")
        if not file.exists():
            options = [*row.options, *([f"--seconds={row.seconds}"] if row.seconds else [])]
            options += [f"--sampling-steps={row.steps}"] if row.steps else []
            command = [sys.executable, "-m", f"benchmarks.peers.{row.peer}", self.data, str(file)]
            options.append(f"--num-jets={row.size or self.size}")
            subprocess.run([*command, *options], check=True)
        with QuarkGluonFile(file) as opened:
            cost = {k: v for k, v in opened.attrs.items() if k not in ("simulated", "conditional")}
        cost["jets_per_second"] = cost["training_jets"] / cost["training_seconds"]
        return load_jets(file, None, np.random.default_rng(0), generated=True), cost

    def _folder(self, row: RowSettings, kind: str = "runs") -> Path:
        (self.out / kind).mkdir(parents=True, exist_ok=True)
        return self.out / kind / file_stem(row.name)


def _first(jets: JetSample, row: RowSettings) -> JetSample:
    """As many of the jets as the row asks for."""
    if row.size is None:
        return jets
    if not 0 < row.size <= len(jets):
        raise ValueError(f"row {row.name!r} asks for {row.size} jets, of which there are {len(jets)}")
    return jets.take(np.arange(row.size))


def training_cost(run: RunFolder, pipeline: JetImagePipeline) -> dict[str, Any]:
    """Parameters, jets seen and speed of a run."""
    last = run.read_metrics("train")[-1]
    return {
        "parameters": sum(count_parameters(pipeline).values()),
        "training_jets": last["jets"],
        "jets_per_second": last["jets_per_second"],
        "training_seconds": last["jets"] / last["jets_per_second"],
    }


def read_rows(path: Path) -> list[RowSettings]:
    """The rows of a YAML file.

    Raises:
        ValueError: for a row with no source of jets, several, or one that no row before it names.
    """
    rows = [
        RowSettings(**{**row, "options": tuple(row.get("options", ()))}) for row in yaml.safe_load(path.read_text())
    ]
    names: set[str] = set()
    for row in rows:
        sources = [name for name in ("run", "config", "peer", "control", "jets_of") if getattr(row, name)]
        if len(sources) != 1:
            raise ValueError(f"row {row.name!r} needs one of run, config, peer, control, jets_of; it has {sources}")
        missing = {row.jets_of, row.reduced_by} - {None} - names
        if missing:
            raise ValueError(f"row {row.name!r} refers to {', '.join(map(str, missing))}, which no row before it is")
        if row.control and row.control not in CONTROLS:
            raise ValueError(f"row {row.name!r}: there is no control {row.control!r}, but {', '.join(CONTROLS)}")
        names.add(row.name)
    return rows


def main() -> None:
    """Compare as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder made by `jet-diffusion convert`")
    parser.add_argument("out", type=Path, help="folder of the table and of all that is kept")
    parser.add_argument("--rows", type=Path, default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--only", nargs="+", help="names of the rows to make")
    parser.add_argument("--size", type=int, default=300, help="jets of each row (default 300)")
    parser.add_argument("--draws", type=int, default=3, help="draws of each distance (default 3)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = [row for row in read_rows(options.rows) if not options.only or row.name in options.only]
    comparison = Comparison(options.data, options.out, options.size, options.seed)
    judged = []
    for row in rows:
        print(f"== {row.name}", flush=True)
        candidate = comparison.candidate(row)
        verdict = judge(candidate, comparison.real, comparison.training, draws=options.draws, seed=options.seed)
        judged.append({**verdict, "settings": asdict(row)})
        write_comparison(judged, comparison.candidates, comparison.real, options.out)
    print((options.out / "compare.md").read_text())


if __name__ == "__main__":
    main()
