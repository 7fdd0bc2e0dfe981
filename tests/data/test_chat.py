"""Which of a chat is learned: compared with the marks of transformers in TRL's templates, and written out."""

import json
from pathlib import Path
from typing import Any

import pytest
import trl

from apt_model.data.encode import count_answers, encode_rows, prompt_and_reference
from apt_model.data.encoded import IGNORED
from apt_model.errors import DataError
from tests.chats import CHATML, byte_level

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "of a town",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"town": "Bath"}}}


def user(words: Any) -> dict[str, Any]:
    return {"role": "user", "content": words}


def assistant(words: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": words, **more}


CHATS: dict[str, list[dict[str, Any]]] = {
    "one": [user("A river?"), assistant("The Loire.")],
    "two": [user("A river?"), assistant("The Loire."), user("A lake?"), assistant("Como.")],
    "same": [user("Yes."), assistant("Yes."), user("Yes."), assistant("Yes.")],
    "system": [{"role": "system", "content": "Be terse."}, user("A river?"), assistant("The Loire.")],
    "think": [user("A river?"), assistant("<think>\na\n</think>\n\nThe Loire."), user("A lake?"), assistant("Como.")],
    "tools": [
        user("Rain?"),
        assistant("", tool_calls=[CALL]),
        {"role": "tool", "name": "weather", "tool_call_id": "abcdefghi", "content": "dry"},
        assistant("No rain."),
        user("Sure?"),
        assistant("Yes."),
    ],
}


def learned(row: dict[str, Any], tokenizer: Any) -> str:
    ((_, labels, _),) = encode_rows([row], tokenizer, 10_000)
    return str(tokenizer.decode([label for label in labels if label != IGNORED]))


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("family", ["cohere2", "gemma3", "lfm2", "llama3", "phi3", "qwen2_5_vl", "qwen3_instruct_2507"])
def test_what_is_learned_is_what_transformers_marks_in_the_template_that_trl_wrote_for_it(
    family: str, chat: str
) -> None:
    """TRL has each template twice: as its model's makers wrote it, and with `{% generation %}` around the answers."""
    marked = byte_level((TEMPLATES / f"{family}_training.jinja").read_text("utf-8"))
    plain = byte_level((TEMPLATES / f"{family}.jinja").read_text("utf-8"))
    row = {"messages": CHATS[chat], **({"tools": [TOOL]} if chat == "tools" else {})}
    how = {"return_dict": True, "return_assistant_tokens_mask": True, "tools": row.get("tools")}
    if chat == "tools" and family not in ("qwen3_instruct_2507",):
        with pytest.raises(DataError, match=r"tool calls|refuses a chat"):  # its makers have no place for them
            encode_rows([row], plain, 10_000)
        return
    right = marked.apply_chat_template(CHATS[chat], **how)
    ((ids, labels, _),) = encode_rows([row], plain, 10_000)
    assert ids == right["input_ids"]
    assert [int(label != IGNORED) for label in labels] == right["assistant_masks"]
    assert learned(row, marked) == learned(row, plain)  # where a template marks the answers, its marks count


def test_a_template_that_drops_earlier_thoughts_has_every_answer_learned_as_it_stands_there() -> None:
    qwen = byte_level((TEMPLATES / "qwen3.jinja").read_text("utf-8"))
    row = {"messages": CHATS["think"]}
    assert learned(row, qwen) == "The Loire.<|im_end|>\n<think>\n\n</think>\n\nComo.<|im_end|>\n"
    assert count_answers(row, qwen, 10_000) == (2, 2)
    tools = {"messages": CHATS["tools"], "tools": [TOOL]}
    call = '<tool_call>\n{"name": "weather", "arguments": {"town": "Bath"}}\n</tool_call><|im_end|>\n'
    assert learned(tools, qwen) == f"{call}No rain.<|im_end|>\n<think>\n\n</think>\n\nYes.<|im_end|>\n"


def test_a_turn_that_ends_otherwise_than_the_last_one_is_learned_with_its_own_end() -> None:
    gpt_oss = byte_level((TEMPLATES / "gptoss.jinja").read_text("utf-8"))
    said = "<|channel|>final<|message|>The Loire.<|end|><|channel|>final<|message|>Como.<|return|>"
    assert learned({"messages": CHATS["two"]}, gpt_oss) == said


def test_a_template_that_writes_the_tools_before_the_last_question_has_every_call_and_answer_learned() -> None:
    """As Mistral's: it has no generation prompt, and refuses turns that do not alternate, tool calls left out."""
    mistral = byte_level(
        "{%- for m in messages | rejectattr('role', 'equalto', 'tool') | selectattr('tool_calls', 'undefined') %}"
        "{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}"
        "{%- endfor %}"
        "{%- set asked = messages | selectattr('role', 'equalto', 'user') | list %}{{ bos_token }}"
        "{%- for m in messages %}{%- if m.role == 'user' %}"
        "{%- if tools and m == asked[-1] %}{{ '[TOOLS]' + tools | tojson + '[/TOOLS]' }}{% endif %}"
        "{{ '[INST] ' + m.content + '[/INST]' }}"
        "{%- elif m.tool_calls is defined %}{{ '[CALLS] ' + m.tool_calls | tojson + eos_token }}"
        "{%- elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
        "{%- else %}{{ '[RESULT] ' + m.content + m.name + m.tool_call_id + '[/RESULT]' }}{% endif %}{%- endfor %}"
    )
    row = {"messages": CHATS["tools"], "tools": [TOOL]}
    text = mistral.apply_chat_template(CHATS["tools"], tools=[TOOL], tokenize=False)
    call = text[text.index("[CALLS]") : text.index("[RESULT]")]
    assert learned(row, mistral) == f"{call} No rain.</s> Yes.</s>"
    assert call.endswith("</s>")


def test_an_answer_that_nothing_ends_is_learned_with_the_token_behind_it_and_told_of() -> None:
    glm = byte_level((TEMPLATES / "glm4moe.jinja").read_text("utf-8"))
    with pytest.warns(UserWarning, match="does not learn where to stop"):
        said = learned({"messages": CHATS["two"]}, glm)
    assert said == "\n<think></think>\nThe Loire.<|user|>\n<think></think>\nComo."


def test_a_prompt_that_opens_a_thought_leaves_the_answers_without_one_learned() -> None:
    opens = byte_level(
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<|u|>' + m.content }}"
        "{% else %}{{ '<|a|>' + m.content.split('</think>')[-1] + '</s>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|a|><think>\n' }}{% endif %}"
    )
    chat = [user("A river?"), assistant("<think>hm</think>The Loire."), user("A lake?"), assistant("Como.")]
    with pytest.warns(UserWarning, match="leaves out thoughts"):
        assert learned({"messages": chat}, opens) == "The Loire.</s>Como.</s>"


def test_an_assistant_that_speaks_first_or_twice_is_learned() -> None:
    chatml = byte_level("{{ messages[0]['role'] and '' }}" + CHATML)  # fails on a chat without turns
    hello = [assistant("Good day."), user("A river?"), assistant("The Loire."), assistant("Or the Po."), user("Fine.")]
    said = "Good day.<|im_end|>\nThe Loire.<|im_end|>\nOr the Po.<|im_end|>\n"
    assert learned({"messages": hello}, chatml) == said


@pytest.mark.parametrize("arguments", [{"town": "Bath"}, '{"town": "Bath"}'])
def test_arguments_of_a_tool_call_are_written_once_as_json(arguments: Any) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    row = {"messages": [user("Rain?"), {"role": "assistant", "content": None, "tool_calls": [call]}], "tools": [TOOL]}
    llama = byte_level((TEMPLATES / "llama3_1.jinja").read_text("utf-8"))
    assert learned(row, llama) == '{"name": "weather", "parameters": {"town": "Bath"}}<|eot_id|>'
    deepseek = byte_level((TEMPLATES / "deepseekv3.jinja").read_text("utf-8"))  # takes strings alone
    del row["tools"]  # which it does not write
    assert 'weather\n```json\n{"town": "Bath"}\n```' in learned(row, deepseek)


def test_a_function_call_of_sharegpt_is_a_tool_call_or_words_and_its_answer_a_tools() -> None:
    row = {
        "conversations": [
            {"from": "human", "value": "Rain?"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"town": "Bath"}}'},
            {"from": "observation", "value": "dry"},
            {"from": "gpt", "value": "No rain."},
        ],
        "tools": json.dumps([TOOL["function"]]),
    }
    qwen = byte_level((TEMPLATES / "qwen2_5.jinja").read_text("utf-8"))
    call = '<tool_call>\n{"name": "weather", "arguments": {"town": "Bath"}}\n</tool_call><|im_end|>\n'
    assert learned(row, qwen) == f"{call}No rain.<|im_end|>\n"
    with pytest.warns(UserWarning, match="no use for tools"):
        said = learned(row, byte_level(CHATML))
    assert said == '{"name": "weather", "arguments": {"town": "Bath"}}<|im_end|>\nNo rain.<|im_end|>\n'


@pytest.mark.parametrize("content", ["A river?", [{"type": "text", "text": "A river?"}]])
@pytest.mark.parametrize("family", ["llama3", "qwen2_5_vl", "smolvlm", "gemma3"])
def test_words_and_parts_of_text_are_written_as_words_whatever_the_template_takes(family: str, content: Any) -> None:
    template = byte_level((TEMPLATES / f"{family}.jinja").read_text("utf-8"))
    answer = content if isinstance(content, str) else [{"type": "text", "text": "The Loire."}]
    row = {"messages": [user(content), assistant(answer)]}
    ((ids, _, _),) = encode_rows([row], template, 10_000)
    text = template.decode(ids)
    assert "A river?" in text
    assert "'type'" not in text
    assert (content if isinstance(content, str) else "The Loire.") in learned(row, template)


def test_a_turn_that_the_template_leaves_out_and_an_unknown_speaker_are_refused() -> None:
    deaf = byte_level(
        CHATML.replace("{{ '<|im_start|>'", "{% if m.role != 'system' %}{{ '<|im_start|>'", 1).replace(
            "{% endfor %}", "{% endif %}{% endfor %}", 1
        )
    )
    with pytest.raises(DataError, match=r"leaves out turn 1 of a chat; got system: 'Be terse\.'"):
        encode_rows([{"messages": CHATS["system"]}], deaf, 100)
    chatml = byte_level(CHATML)
    with pytest.raises(DataError, match="turn 1 of a chat has an unknown speaker; got 'narrator'"):
        encode_rows([{"messages": [{"role": "narrator", "content": "Once"}, assistant("What?")]}], chatml, 100)
    with pytest.raises(DataError, match="leaves out the tool calls of turn 2"):
        encode_rows([{"messages": [user("Rain?"), {"role": "assistant", "tool_calls": [CALL]}]}], chatml, 100)


def test_what_a_template_has_no_use_for_is_told() -> None:
    said: list[tuple[str, Any]] = []
    row = {
        "messages": [user("A river?"), assistant("The Loire.", reasoning_content="long", id="7")],
        "chat_template_kwargs": {"enable_thinking": False},
    }
    encode_rows([row], byte_level(CHATML), 100, tell=lambda key, **values: said.append((key, values)))
    assert said == [
        ("template_arguments", {"names": "enable_thinking"}),
        ("turn_keys", {"names": "id, reasoning_content"}),
    ]


def test_the_reference_of_a_chat_is_what_a_student_that_knows_it_answers_to_its_prompt() -> None:
    qwen = byte_level((TEMPLATES / "qwen3.jinja").read_text("utf-8"))
    asked = prompt_and_reference({"messages": CHATS["two"]}, qwen)
    assert asked is not None
    prompt = qwen.apply_chat_template(CHATS["two"][:-1], add_generation_prompt=True, return_dict=False)
    assert asked[0] == prompt
    ((ids, labels, _),) = encode_rows([{"messages": CHATS["two"]}], qwen, 10_000)
    last = ids[len(ids) - labels[::-1].index(IGNORED) :]
    assert asked[1] == qwen.decode(last, skip_special_tokens=True).strip()
