"""The head of a model card: plain facts, and no more than those."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance_release.sbom.model_card import read_license, read_model_card


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "README.md").write_text(text)
    return tmp_path


def test_plain_facts_of_the_head_are_read(tmp_path: Path) -> None:
    lists = "tags: [a, b]\nlanguage:\n- en"
    text = f"---\nlicense: mit\n{lists}\npipeline_tag: text-generation\n---\nx: y\n"
    assert read_model_card(write(tmp_path, text)) == {
        "license": "mit",
        "pipeline_tag": "text-generation",
    }


@pytest.mark.parametrize("text", ["", "# Title\nlicense: mit\n", "---\nlicense: mit\n"])
def test_a_card_without_a_head_has_no_facts(text: str, tmp_path: Path) -> None:
    assert read_model_card(write(tmp_path, text)) == {}


def test_a_missing_card_has_no_facts(tmp_path: Path) -> None:
    assert read_model_card(tmp_path) == {}
    assert read_license(tmp_path) is None


def test_another_licence_is_called_by_its_name(tmp_path: Path) -> None:
    write(tmp_path, "---\nlicense: other\nlicense_name: llama3\n---\n")
    assert read_license(tmp_path) == "llama3"
