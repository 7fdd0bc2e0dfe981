"""Every turn stands in the text of its chat, once, and a long chat takes few renderings."""

from typing import Any

import pytest

from apt_model.data import template as template_module
from apt_model.data.encode import encode_rows
from apt_model.data.encoded import IGNORED
from apt_model.errors import DataError
from tests.data.test_chat import CALL, CHATML, TEMPLATES, TOOL, assistant, learned, tokenizer_with, user

ANSWERED = {"role": "tool", "name": "weather", "tool_call_id": "abcdefghi", "content": "dry"}


@pytest.mark.parametrize("family", ["llama3_1", "llama3_2", "gptoss", "muse_glimmer"])
def test_words_beside_a_tool_call_that_the_template_drops_refuse_the_row(family: str) -> None:
    tokenizer = tokenizer_with((TEMPLATES / f"{family}.jinja").read_text())
    chat = [user("Rain?"), assistant("Let me see.", tool_calls=[CALL]), ANSWERED, assistant("No.")]
    assert "Let me see." not in tokenizer.apply_chat_template(chat, tools=[TOOL], tokenize=False)
    with pytest.raises(DataError, match="leaves out the words of turn 2"):
        learned({"messages": chat, "tools": [TOOL]}, tokenizer)


@pytest.mark.parametrize("dropped", ["system", "user", "assistant"])
def test_a_dropped_turn_is_refused_although_another_turn_has_the_same_words(dropped: str) -> None:
    tokenizer = tokenizer_with(CHATML.replace("messages %}", f"messages if m['role'] != '{dropped}' %}}", 1))
    chat = [{"role": "system", "content": "Yes."}, user("Yes."), assistant("Yes.")]
    turn = [said["role"] for said in chat].index(dropped) + 1
    with pytest.raises(DataError, match=f"leaves out turn {turn}"):
        learned({"messages": chat}, tokenizer)


@pytest.mark.parametrize("family", ["gemma4", "diffusion_gemma"])
def test_what_a_tool_says_is_not_learned_where_the_template_writes_it_within_an_answer(family: str) -> None:
    """Gemma 4 writes the words of a turn with calls behind what the tools answered."""
    tokenizer = tokenizer_with((TEMPLATES / f"{family}.jinja").read_text())
    chat = [user("Rain?"), assistant("Let me see.", tool_calls=[CALL]), ANSWERED, assistant("No.")]
    text = tokenizer.apply_chat_template(chat, tools=[TOOL], tokenize=False)
    assert text.index("call:weather") < text.index("dry") < text.index("Let me see.")
    with pytest.raises(DataError, match="turn 3 within turn 2"):
        learned({"messages": chat, "tools": [TOOL]}, tokenizer)
    assert "dry" not in learned({"messages": [chat[0], assistant("", tool_calls=[CALL]), *chat[2:]]}, tokenizer)


@pytest.mark.parametrize("family", ["chatml", "qwen3", "deepseekv3", "gptoss", "gemma3", "phi3"])
def test_a_long_chat_takes_no_more_renderings_than_a_short_one(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_with(CHATML if family == "chatml" else (TEMPLATES / f"{family}.jinja").read_text())
    counts, apply = [0], template_module.apply

    def counting(*args: Any, **how: Any) -> Any:
        counts[-1] += 1
        return apply(*args, **how)

    monkeypatch.setattr(template_module, "apply", counting)
    for rounds in (5, 50):
        counts.append(0)
        chat = [turn for n in range(rounds) for turn in (user(f" Q{n}?"), assistant(f"A{n}.\n"))]
        ((_, labels, _),) = encode_rows([{"messages": chat}], tokenizer, 10**9)
        said = str(tokenizer.decode([label for label in labels if label != IGNORED]))
        assert [said.count(f"A{n}.") for n in range(rounds)] == [1] * rounds
        assert "Q" not in said
        if family == "chatml":  # the answers with their ends, written out
            assert said == "".join(f"A{n}.\n<|im_end|>\n" for n in range(rounds))
    assert counts[2] <= counts[1]
