"""A folder for a Space on the Hub: the page of a published model, with this package beside it."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import requires
from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData

import jet_diffusion
from jet_diffusion.errors import require
from jet_diffusion.io import partial_folder, replace_folder, restore_folder

APP = '''\
"""The page that `jet-diffusion serve {model}` shows."""

from jet_diffusion.workflows.browser.jets import load_browser
from jet_diffusion.workflows.browser.page import make_page

page = make_page(load_browser("{model}", most_jets={most_jets}))

if __name__ == "__main__":
    page.launch()
'''

CARD = """\
---
{data}
---

# {title}

Make jets of [{model}](https://huggingface.co/{model}), look at them, and download them.
The folder `jet_diffusion` is the package of this name, version {version}.
"""

MOST_JETS = 16
"""A free Space has two CPU cores for all its visitors."""


def stage_space(folder: Path, space: str, model: str, licence: str) -> Path:
    """Write a Space's folder.

    Args:
        folder: Appears when it is complete; one staged before is replaced.
        space: Name of the Space on the Hub.
        model: Name of the model on the Hub, which the Space loads.
        licence: Of the model.

    Raises:
        UserError: If Gradio is not installed, whose version the Space is to have.
        FileExistsError: If the folder holds something else.
    """
    gradio = require("gradio", "serve", "a Space")
    restore_folder(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / "app.py").is_file():
        raise FileExistsError(f"{folder} exists and is no staged Space; delete it first")
    title = space.rsplit("/", maxsplit=1)[-1]
    data = SpaceCardData(
        title=title,
        sdk="gradio",
        sdk_version=gradio.__version__,
        python_version="{}.{}".format(*sys.version_info),  # a Space's own default is older than this package takes
        app_file="app.py",
        license=licence,
        models=[model],
    )
    card = CARD.format(data=data.to_yaml(), title=title, model=model, version=jet_diffusion.__version__)
    work = partial_folder(folder)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        (work / "app.py").write_text(APP.format(model=model, most_jets=MOST_JETS))
        needed = [line for line in requires("jet-diffusion") or [] if "extra ==" not in line]
        (work / "requirements.txt").write_text("\n".join(needed) + "\n")
        # The package is put beside the page, for a Space can install from PyPI alone.
        package = Path(jet_diffusion.__file__).parent
        shutil.copytree(package, work / "jet_diffusion", ignore=shutil.ignore_patterns("__pycache__"))
        SpaceCard(card).save(work / "README.md")
        replace_folder(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder
