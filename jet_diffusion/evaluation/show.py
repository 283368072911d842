"""An evaluation that shows itself: as a table, in pictures, as a page, in a notebook."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from jet_diffusion.errors import UserError
from jet_diffusion.evaluation.plots import observable_pages
from jet_diffusion.evaluation.result import Evaluation
from jet_diffusion.evaluation.write import drawings, write_report
from jet_diffusion.io import write_text_atomically
from jet_diffusion.report.tables import result_table, verdict

if TYPE_CHECKING:
    import pandas as pd


@dataclass(repr=False)
class JetEvaluation(Evaluation):
    """What `evaluate_jets` returns: results, and the jets they are of.

    The numbers are in `report.results`, one by one in `report.result("fpd")`.
    """

    def table(self) -> pd.DataFrame:
        """The results, one a row: metric, value, error, baseline (real against real), and whether its goal is met."""
        import pandas as pd

        rows = [
            {
                "metric": result.label,
                "value": result.value,
                "error": result.error,
                "baseline": result.baseline,
                "baseline_error": result.baseline_error,
                "unit": result.unit,
                "jets": result.size,
                "goal": result.goal.text if result.goal else "",
                "verdict": verdict(result),
            }
            for result in self.report.results
        ]
        return pd.DataFrame(rows, index=pd.Index([result.name for result in self.report.results], name="name"))

    def plot(self, picture: str | None = None) -> Figure:
        """Draw one picture of the report.

        Args:
            picture: its name in the report, such as jets, radial_profiles, hit_spectra, wasserstein, correlations, roc
                or closure; None draws the first observables of generated over those of real jets.

        Raises:
            UserError: this evaluation has no such picture; the message lists those it has.
        """
        if picture is None:
            return next(observable_pages(self))[1]
        names = []
        for name, _, _, figure in drawings(self._copy()):
            if name == picture:
                return figure
            names.append(name)
        raise UserError(f"there is no picture {picture!r}; this evaluation has {', '.join(names)}")

    def to_html(self, path: str | Path | None = None) -> str | None:
        """Make the report's page, which holds its pictures and needs no network.

        Args:
            path: the file to write; None returns the page instead.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        with TemporaryDirectory(prefix="jet-diffusion-") as folder:
            write_report(self._copy(), Path(folder), formats=["png"])
            page = (Path(folder) / "report.html").read_text(encoding="utf-8")
        if path is None:
            return page
        write_text_atomically(path, page)
        return None

    def __repr__(self) -> str:
        """One line for a prompt."""
        jets = f"{len(self.generated):,} generated and {len(self.reference) + len(self.second):,} real jets"
        return f"<JetEvaluation: {len(self.report.results)} results of {jets}; see .table(), .plot(), .to_html(FILE)>"

    def _copy(self) -> Evaluation:
        """The same with a report of its own: pictures are noted there as they are drawn."""
        return replace(self, report=deepcopy(self.report))

    def _repr_html_(self) -> str:
        """Show itself in a notebook: notices and the table of results."""
        import pandas as pd

        shown = result_table(self.report)
        notices = "".join(f"<p><b>{escape(notice)}</b></p>" for notice in self.report.notices)
        omitted = "; ".join(f"{entry['name']}: {entry['reason']}" for entry in self.report.omitted)
        left_out = f"<p>Left out: {escape(omitted)}</p>" if omitted else ""
        table = pd.DataFrame(list(shown.rows), columns=list(shown.columns)).to_html(index=False, border=0)
        return f"{notices}<p>{escape(shown.text)}</p>{table}{left_out}"
