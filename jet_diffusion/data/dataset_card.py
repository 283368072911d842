"""The card of a converted dataset: the template of `model_cards/` filled from the metadata file."""

from __future__ import annotations

from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from jet_diffusion.report.render import render_markdown

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def make_dataset_card(metadata: dict[str, Any], repo: str) -> DatasetCard:
    """Fill the dataset card.

    Args:
        metadata: Content of the metadata file (`conversion.convert` returns it).
        repo: Where the card says the dataset is loaded from: a folder or `user/name`.
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
        jet_diffusion=metadata,
    )
    content = render_markdown(
        "dataset_card.md",
        card_data=card_data.to_yaml(),
        pretty_name=pretty_name,
        simulated=simulated,
        num_jets=num_jets,
        repo=repo,
        splits=splits,
        source_name=metadata["source"]["name"],
        source_jets=metadata["source"]["num_jets"],
        source_size=metadata["source"]["size"],
        fractions=" / ".join(f"{share:g}" for share in metadata["fractions"].values()),
        seed=metadata["seed"],
        duplicate_jets=metadata["duplicates"]["jets"],
        duplicate_jets_across_splits=metadata["duplicates"]["jets_across_splits"],
        num_hcal_not_in_towers=metadata["num_hcal_not_in_towers"],
    )
    return DatasetCard(content)
