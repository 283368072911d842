"""The card of a converted dataset, filled from its metadata file, and the upload of both to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import DatasetCard, DatasetCardData

from jet_diffusion.data.dataset import JetDataset
from jet_diffusion.data.folder import METADATA_FILE, check_whole
from jet_diffusion.io import write_text_atomically
from jet_diffusion.plotting.jets import plot_jets, save_figure
from jet_diffusion.report.render import render_markdown
from jet_diffusion.repositories import push_folder

PICTURE = "jets.png"
"""Name of the card's picture."""

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_dataset_card(folder: Path, metadata: dict[str, Any], repo: str) -> None:
    """Write the card of a whole dataset, and the picture that it begins with: one jet of each class.

    Args:
        folder: The dataset.
        metadata: Content of its metadata file.
        repo: Where the card says the dataset is loaded from: `user/name`.
    """
    split = max(metadata["splits"], key=lambda name: metadata["splits"][name]["num_jets"])
    jets = JetDataset.load(folder, split, check=False)  # they were checked when they were converted
    _, shown = np.unique(jets.labels, return_index=True)
    titles = [f"pT {pt:.0f}, m {m0:.0f} GeV" for pt, m0 in zip(jets.pt[shown], jets.m0[shown], strict=True)]
    save_figure(plot_jets(jets.energies(shown), jets.labels[shown], titles, jets.simulated), folder / PICTURE)
    write_text_atomically(folder / "README.md", str(make_dataset_card(metadata, repo, PICTURE)))


def push(out: str | Path, repo: str, private: bool = False) -> str:
    """Upload a converted folder to the Hub, with a card that names the repository and begins with a picture.

    Args:
        out: A folder made by `convert`.
        repo: `user/name`; made if it does not exist.
        private: Whether a repository made now is private.

    Returns:
        Address of the dataset.

    Raises:
        FileNotFoundError: `out` is no converted folder, or shards are missing.
        UserError: A shard is foreign, changed or damaged.
        OSError: The Hub refuses, or cannot be reached.
    """
    out = Path(out)
    metadata = check_whole(out, verify=True)
    write_dataset_card(out, metadata, repo)
    return push_folder(
        out,
        repo,
        "dataset",
        f"Convert {metadata['source']}",
        private=private,
        allow_patterns=[METADATA_FILE, "README.md", PICTURE, *metadata.get("shards", ["data/[!.]*.parquet"])],
        delete_patterns="data/*.parquet",
    )


def make_dataset_card(metadata: dict[str, Any], repo: str, picture: str | None = None) -> DatasetCard:
    """Fill the dataset card.

    Args:
        metadata: Content of the metadata file (`convert` returns it).
        repo: Where the card says the dataset is loaded from: a folder or `user/name`.
        picture: Name of a picture beside the card.
    """
    splits = [{"name": name, **counts} for name, counts in metadata["splits"].items()]
    num_jets = sum(split["num_jets"] for split in splits)
    simulated = metadata["simulated"]
    pretty_name = "Quark and gluon jet images" + (" (simulated stand-in)" if simulated else "")
    data_files = [{"split": split["name"], "path": f"data/{split['name']}-*.parquet"} for split in splits]
    # `datasets` names its cache of a local folder after the folder's name and this configuration, not after
    # the files: without the fingerprints two folders of one name would be taken for the same.
    description = "fingerprints " + " ".join(split["fingerprint"] for split in splits)
    configuration = {"config_name": "default", "description": description, "data_files": data_files}
    card_data = DatasetCardData(
        pretty_name=pretty_name,
        license="unknown",
        task_categories=["image-classification", "unconditional-image-generation"],
        size_categories=next((name for limit, name in _SIZES if num_jets < limit), "1M<n<10M"),
        tags=["physics", "jets", "calorimeter", "hdf5", *(["simulated"] if simulated else [])],
        configs=[configuration],
        jet_diffusion={name: value for name, value in metadata.items() if name != "shards"},
    )
    content = render_markdown(
        "dataset_card.md",
        card_data=card_data.to_yaml(),
        pretty_name=pretty_name,
        picture=picture,
        simulated=simulated,
        num_jets=num_jets,
        repo=repo,
        splits=splits,
        sources=_describe_sources(metadata),
        remarks=_remarks(metadata),
        findings=[f"{finding['level']}, {finding['text']}" for finding in metadata.get("findings", [])],
        fractions=" / ".join(f"{share:g}" for share in metadata["fractions"].values()),
        seed=metadata["seed"],
        appended=metadata.get("appended", []),
        duplicate_jets=metadata["duplicates"]["jets"],
        duplicate_jets_across_splits=metadata["duplicates"]["jets_across_splits"],
        num_hcal_not_in_towers=metadata["num_hcal_not_in_towers"],
    )
    return DatasetCard(content)


def _describe_sources(metadata: dict[str, Any]) -> list[str]:
    """One phrase for each source file; those of older datasets have one source."""
    sources = metadata.get("sources") or [metadata["source"]]
    return [f"{row['name']} ({row['num_jets']} jets, {row['size'] / 1e6:,.1f} MB)" for row in sources]


def _remarks(metadata: dict[str, Any]) -> list[str]:
    """What reading changed, and what was left out."""
    said = [f"{row['name']}: {remark}" for row in metadata.get("sources", []) for remark in row["remarks"]]
    suppressed = metadata.get("suppressed", {"energies": 0})
    if suppressed["energies"]:
        said.append(f"{suppressed['energies']} energies became 0 so, {suppressed['negative']} of them negative")
    if metadata.get("dropped_repeats"):
        said.append(f"{metadata['dropped_repeats']} jets that repeat an image were left out")
    return said
