"""Text from files: whatever it holds, it shows as itself and adds nothing to a report or a card."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from huggingface_hub import ModelCard, ModelCardData

from jet_diffusion.errors import printable
from jet_diffusion.quantum.report.pages import to_markdown as to_quantum_markdown
from jet_diffusion.report.model import MetricResult, Report
from jet_diffusion.report.render import code_text, markdown_text, render_markdown, to_html, to_markdown

HOSTILE = (
    "\n# A heading",
    "# A heading",
    "- an item",
    "1. an item",
    "> a quotation",
    "\n\n| a | row |\n",
    "a | cell",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![picture](http://x.y/z.png)",
    "[link](javascript:alert(1))",
    "**bold** and `code`\n```\nfence",
    "\x1b[31mred\x1b[0m\x07",
    "\u202egnp.exe",
    "\r\n---\r\nkey: value",
    "{{ 7 * 7 }} {% raw %}",
)


STARTS = ("mmd", "w1_width", "w1_lead", "w1_n_eff", "profile")


class Elements(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text.append(data)


def report_of(text):
    report = Report({"title": f"About {text}", "sampling": {"who": text}})
    report.notices.append(text)
    report.add(MetricResult("fpd", text, text, 0.1, None, None, None, 5, unit="", note=text))
    report.omit("kpd", text)
    return report


def prose(text):
    """A Markdown text without what stands in its code blocks, which is shown as it is."""
    return re.sub(r"```.*?```", "```", text, flags=re.DOTALL)


def lines_of(text):
    """Lines of a Markdown text without the words that differ: what each line is, and its number of cells."""
    return [(line[:2], line.replace("\\|", "").count("|")) for line in prose(text).splitlines()]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_report_has_the_same_lines_whatever_a_file_says(text):
    plain, found = to_markdown(report_of("x")), to_markdown(report_of(text))
    assert lines_of(found) == lines_of(plain)
    assert "<" not in found and "\x1b" not in found and "\u202e" not in found
    assert not re.search(r"(?<!\\)\]\(", found) and "49" not in found


@pytest.mark.parametrize("text", HOSTILE)
def test_a_page_has_the_same_elements_whatever_a_file_says(text, tmp_path):
    pages = [Elements(), Elements()]
    for page, words in zip(pages, ("x", text), strict=True):
        page.feed(to_html(report_of(words), tmp_path))
    plain, found = pages
    assert found.tags == plain.tags and found.attributes == plain.attributes
    assert printable(text, None) in "".join(found.text)
    assert not any(character in "".join(found.text) for character in "\x1b\x07\u202e")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_card_has_the_same_lines_whatever_a_file_says(text):
    def card(words):
        scores = {
            "simulated": words,
            "architecture": words,
            "test": {"auc": 0.5, "accuracy": 0.5, "by_class": {words: 0.5}, "jets": 1},
            "trained_on": {"jets": 5, "fingerprint": words},
        }
        data = ModelCardData(model_name=words, license="mit")
        written = render_markdown(
            "tagger_card.md", card_data=data.to_yaml(), name=words, scores=scores, test=scores["test"]
        )
        return ModelCard(written)

    plain, found = card("x"), card(text)
    assert found.data.to_dict()["model_name"] == text
    assert lines_of(found.text) == lines_of(plain.text)
    assert found.text.count("```") == plain.text.count("```")
    assert "<script" not in prose(found.text) and "\x1b" not in found.text


@pytest.mark.parametrize("text", HOSTILE)
def test_the_quantum_report_has_the_same_lines_whatever_a_file_says(text):
    def written(words):
        heading = {"title": words, "simulated": words, **dict.fromkeys(("train", "test", "generated", "steps"), 1)}
        content = {
            "heading": {**heading, "seeds": 1, "iterations": 1},
            "rows": [{"name": "a", "label": words, "parameters": 5, "figures": {"mmd": {"mean": 0.1, "spread": 0.01}}}],
            "readout": {"success": {"5": 0.5}, "shots": {"100": 0.9}},
            "starts": [{"model": words, "start": words, "figures": dict.fromkeys(STARTS, 0.1)}],
            "quddpm": None,
        }
        return to_quantum_markdown(content)

    assert lines_of(written(text)) == lines_of(written("x"))
    assert "<" not in written(text) and "\x1b" not in written(text)


def test_ordinary_words_stay_readable():
    for text in (
        "heldout_12k.hdf5",
        "0.0334 ± 0.0012",
        "-1.5",
        "(-112 ± 78)e-6",
        "at most 0.55",
        "arXiv:2211.10295",
        "-",
    ):
        assert markdown_text(text) == text
    assert markdown_text("a_b _c_ x*y") == r"a_b \_c\_ x\*y"
    assert code_text("`a`\nb") == "'a' b"


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(Exception, match="'name' is undefined"):
        render_markdown("tagger_card.md", card_data="")
