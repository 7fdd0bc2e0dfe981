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


def test_a_call_is_learned_up_to_its_end_where_its_functions_name_stands_in_the_answer_too() -> None:
    """gpt-oss names the function in the header of what it answers; of a thought that is dropped there it is told."""
    tokenizer = tokenizer_with((TEMPLATES / "gptoss.jinja").read_text())
    chat = [user("Rain?"), assistant("", reasoning_content="hm?", tool_calls=[CALL]), ANSWERED, assistant("No.")]
    with pytest.warns(UserWarning, match="leaves out thoughts"):
        found = learned({"messages": chat, "tools": [TOOL]}, tokenizer)
    call = ' to=functions.weather<|channel|>commentary json<|message|>{"town": "Bath"}<|call|>'  # OpenAI's harmony form
    assert found == call + "<|channel|>final<|message|>No.<|return|>"


def test_a_second_call_that_the_template_drops_refuses_the_row_though_its_name_stands_in_the_text() -> None:
    tokenizer = tokenizer_with((TEMPLATES / "gptoss.jinja").read_text())
    other = {**CALL, "function": {"name": "weather", "arguments": {"town": "York"}}}
    chat = [user("Rain?"), assistant("", tool_calls=[CALL, other])]
    assert "York" not in tokenizer.apply_chat_template(chat, tools=[TOOL], tokenize=False)
    with pytest.raises(DataError, match="does not write the tool calls"):
        learned({"messages": chat, "tools": [TOOL]}, tokenizer)


@pytest.mark.parametrize(
    "template", ["{{ m['content'][0]['text'] }}", "{% for p in m['content'] %}{{ p['text'] }}\n{% endfor %}"]
)
def test_every_part_of_a_content_is_written_also_by_a_template_that_takes_the_first_alone(template: str) -> None:
    tokenizer = tokenizer_with(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n" + template + "<|im_end|>\n{% endfor %}"
    )
    parts = [{"type": "input_text", "text": "A river?"}, {"text": "In France?"}]
    ((ids, _, _),) = encode_rows([{"messages": [user(parts), assistant("The Loire.")]}], tokenizer, 10**9)
    assert "A river?\nIn France?" in tokenizer.decode(ids)


@pytest.mark.parametrize("ask", ["<|im_start|>assistant\n", "<|start_header_id|>assistant<|end_header_id|>\n\n"])
def test_a_prompt_that_a_template_writes_behind_every_chat_is_not_learned(ask: str) -> None:
    """As Llama 3's first template did; `asked` is what a template without that prompt writes."""
    head = ask.replace("assistant", "' + m['role'] + '").replace("\n", "\\n")
    asked = "{% for m in messages %}{{ '" + head + "' + m['content'] + '<|im_end|>' }}{% endfor %}"
    always = tokenizer_with(asked + "{{ '" + ask.replace("\n", "\\n") + "' }}")
    chat = [user("Q?"), assistant("A."), user("R?"), assistant("B.")]
    assert always.apply_chat_template(chat, tokenize=False).endswith(ask)
    assert learned({"messages": chat}, always) == "A.<|im_end|>B.<|im_end|>"


def test_the_header_of_an_answer_is_not_learned_where_only_the_last_turn_has_an_end() -> None:
    tokenizer = tokenizer_with(
        "{% for m in messages %}{{ m['role'] + ':' + m['content'] }}{{ eos_token if loop.last else '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\\nassistant:' }}{% endif %}"
    )
    chat = [user("Q?"), assistant("A."), user("R?"), assistant("B.")]
    assert learned({"messages": chat}, tokenizer) == "A.B.</s>"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ({"rag": CHATML, "tool_use": CHATML}, "several chat templates and no default; got .*rag"),
        ("{% for m in messages %}{{ m.content | nowhere }}{% endfor %}", "no jinja; got No filter named 'nowhere'"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_in_our_words(template: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        learned({"messages": [user("Q?"), assistant("A.")]}, tokenizer_with(template))
