"""Every causal architecture of transformers: what can be made of it is taught, saved, loaded, and generates.

What cannot is refused in one line; docs/architectures.md says which, and is what this finds.
"""

from pathlib import Path

import pytest

from tests.models.architectures import RAW, examine, row_of
from tests.models.tiny import KINDS

TABLE = Path(__file__).parents[2] / "docs" / "architectures.md"
SOME = (  # one of each way to tell layers apart, and of each kind of layer
    "bamba", "bart", "deepseek_v3", "dory", "ernie4_5_moe", "gemma3", "gemma4_text", "gpt_neo", "hrm_text", "jamba",
    "laguna", "longcat_flash", "mamba2", "nemotron_h", "recurrent_gemma", "xlm", "xlstm",
)  # fmt: skip


@pytest.mark.parametrize("kind", SOME)
def test_an_architecture_is_shrunk_cut_taught_saved_loaded_and_generates(kind: str) -> None:
    found = {name: words for name, words in examine(kind).items() if name not in ("told", "narrow: generates")}
    assert {name: words for name, words in found.items() if words != "yes"} == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_the_docs_says_what_becomes_of_each_architecture(kind: str) -> None:
    found = examine(kind)
    assert not [words for words in found.values() if RAW in words]
    (row,) = [line for line in TABLE.read_text("utf-8").splitlines() if line.startswith(f"| {kind} |")]
    assert row_of(kind, found).split("|")[:-2] == row.split("|")[:-2]
    assert row_of(kind, found).split("|")[-2][:60] == row.split("|")[-2][:60]


def test_the_table_has_a_row_for_each_architecture() -> None:
    rows = [line.split("|")[1].strip() for line in TABLE.read_text("utf-8").splitlines() if line.startswith("| ")]
    assert rows[1:] == list(KINDS)
