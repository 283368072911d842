"""A pipeline whose folder holds its own source, so that it loads anywhere.

This file is self-contained so that it can travel to the Hub.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any


class OwnSourcesMixin:
    """Saves, beside what a `DiffusionPipeline` does, the source of the pipeline and of its components."""

    components: dict[str, Any]

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Save a folder that loads by `DiffusionPipeline.from_pretrained(..., trust_remote_code=True)` anywhere.

        Beside what diffusers saves, it holds the source of the pipeline and of each component that diffusers does
        not have, and names them in `model_index.json` in the way that makes the loader find them.
        """
        push_to_hub = kwargs.pop("push_to_hub", False)
        if push_to_hub and (kwargs.get("revision") or kwargs.get("create_pr")):
            raise ValueError("this pipeline pushes to the main branch only; push the saved folder with upload_folder")
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        folder = Path(save_directory)
        index_file = folder / "model_index.json"
        index = json.loads(index_file.read_text())
        (folder / "pipeline.py").write_text(one_file(type(self)))
        index["_class_name"] = ["pipeline", type(self).__name__]
        for name, component in self.components.items():
            if component is None or type(component).__module__.startswith("diffusers."):
                continue
            module = source_of(type(component)).stem
            (folder / name / f"{module}.py").write_text(one_file(type(component)))
            index[name] = [module, type(component).__name__]
        index_file.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
        if push_to_hub:
            self._upload(folder, **kwargs)

    def _upload(self, folder: Path, repo_id: str | None = None, **kwargs: Any) -> None:
        from huggingface_hub import HfApi

        hub = HfApi(token=kwargs.get("token"))
        repo = hub.create_repo(repo_id or folder.name, private=kwargs.get("private"), exist_ok=True).repo_id
        message = kwargs.get("commit_message") or f"Upload {type(self).__name__}"
        hub.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)


def source_of(cls: type) -> Path:
    """The file a class is defined in."""
    return Path(str(sys.modules[cls.__module__].__file__))


def one_file(cls: type) -> str:
    """Source of a class after that of all it imports from its own package: diffusers fetches one file a component."""
    package = cls.__module__.split(".")[0]
    own_import = re.compile(rf"^from (\.\w+|{package}\.[\w.]+) import (?:\([^)]*\)|[^\n]*)\n", re.MULTILINE)
    parts: dict[str, str] = {}

    def add(module: str) -> None:
        text = Path(str(sys.modules[module].__file__)).read_text()
        for name in own_import.findall(text):
            needed = importlib.util.resolve_name(name, module.rpartition(".")[0])
            if needed not in parts:
                add(needed)
        parts[module] = own_import.sub("", text)

    add(cls.__module__)
    if len(parts) == 1:
        return next(iter(parts.values()))
    future = "from __future__ import annotations\n"
    names = ", ".join(f"{module.rpartition('.')[2]}.py" for module in parts)
    joined = "\n\n".join(text.replace(future, "", 1) for text in parts.values())
    return f'"""Made of {names}."""\n\n{future}\n{joined}'
