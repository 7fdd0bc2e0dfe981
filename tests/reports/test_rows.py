"""Reports of rows that lost what they said: turns, roles, flags of turns, tools, reasoning, verdicts.

Right values: `json` for what stands in the file, transformers' own rendering for what a template makes of it.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from apt_model import load_dataset
from apt_model.data.dataset import make_dataloader
from tests.reports.kit import (
    CHATML,
    TOOLS,
    assistant,
    byte_tokenizer,
    jsonl,
    learned,
    learned_rows,
    outcome_of,
    steps_of,
    tiny,
    user,
)


def test_a_turn_marked_loss_false_is_not_learned(tmp_path: Path) -> None:
    # modelscope/ms-swift#9029, #6304; hiyouga/LlamaFactory#2305 (ChatGLM3's field)
    chat = [user("A river?"), assistant("The Ob.", loss=False), user("A lake?"), assistant("Como.", loss=True)]
    done = learned(jsonl(tmp_path / "a.jsonl", [{"messages": chat}]), byte_tokenizer(CHATML))
    if not done.names("loss"):
        ((whole, taught),) = done.value
        assert "The Ob." in whole
        assert "The Ob." not in taught
        assert "Como." in taught


def test_every_round_of_a_tool_calling_chat_is_learned(tmp_path: Path) -> None:
    # hiyouga/LlamaFactory#4729: only the first two turns took part, no observation at all
    call = json.dumps({"name": "area", "arguments": {"sides": [5, 3]}})
    rounds = [("human", "5 by 3?"), ("function_call", call), ("observation", '{"area": 15}'), ("gpt", "It is 15.")]
    rounds += [("human", "4 by 4?"), ("function_call", call.replace("5, 3", "4, 4")), ("observation", '{"area": 16}')]
    rounds += [("gpt", "It is 16.")]
    row = {"conversations": [{"from": who, "value": text} for who, text in rounds]}
    done = learned(jsonl(tmp_path / "a.jsonl", [row]), byte_tokenizer(CHATML))
    if not done.names("function_call"):
        ((whole, taught),) = done.value
        assert all(text in whole for _, text in rounds)
        assert all((text in taught) == (who in ("gpt", "function_call")) for who, text in rounds)


def test_tools_stand_in_the_prompt_beside_a_system_turn(tmp_path: Path) -> None:
    # hiyouga/LlamaFactory#4187, #4152: a system text of one's own drove the tools out
    tools = json.dumps([{"type": "function", "function": {"name": "tide_table", "parameters": {}}}])
    chat = [{"role": "system", "content": "You are a harbour."}, user("High water?"), assistant("At six.")]
    done = learned(jsonl(tmp_path / "a.jsonl", [{"messages": chat, "tools": tools}]), byte_tokenizer(TOOLS))
    if not done.names("tools"):
        ((whole, taught),) = done.value
        assert "tide_table" in whole
        assert "You are a harbour." in whole
        assert "tide_table" not in taught


def test_a_calls_arguments_are_those_of_its_own_row(tmp_path: Path) -> None:
    # axolotl-ai-cloud/axolotl#3136: `time` is a string in one row and a number in another; others lack it
    arguments = [{"time": "2025-08-01"}, {"time": 1690876800}, {"city": "Bern", "deep": {"a": None}}]
    calls = [[{"type": "function", "function": {"name": "f", "arguments": a}}] for a in arguments]
    rows = [{"messages": [user("Go."), {"role": "assistant", "content": "", "tool_calls": c}]} for c in calls]
    done = learned(jsonl(tmp_path / "a.jsonl", rows), byte_tokenizer(TOOLS))
    if not done.names("tool_calls", "row"):
        assert done.value is not None, done.refusal
        for given, (_, taught) in zip(arguments, done.value, strict=True):
            seen = taught.split("<call>f ")[1].split("</call>")[0]
            assert json.loads(seen) == given


def test_reasoning_that_the_template_leaves_out_is_told(tmp_path: Path) -> None:
    # jingyaogong/minimind#737: reasoning_content was gone after apply_chat_template
    chat = [user("2 + 2?"), assistant("4.", reasoning_content="Two and two make four.")]
    done = learned(jsonl(tmp_path / "a.jsonl", [{"messages": chat}]), byte_tokenizer(CHATML))
    assert done.names("reasoning_content") or "Two and two" in done.value[0][1]


def test_thinking_under_another_name_than_the_templates_is_told(tmp_path: Path) -> None:
    # huggingface/transformers#44301, fw-ai/cookbook#378: the template asks for reasoning_content
    template = CHATML.replace(
        "+ m['content']",
        "+ ('<think>' + m['reasoning_content'] + '</think>' if m['reasoning_content'] else '') + m['content']",
    )
    chat = [user("2 + 2?"), assistant("4.", thinking="Two and two make four.")]
    done = learned(jsonl(tmp_path / "a.jsonl", [{"messages": chat}]), byte_tokenizer(template))
    assert done.names("thinking") or "Two and two" in done.value[0][1]


def test_a_developers_turn_that_the_template_drops_is_not_lost_in_silence(tmp_path: Path) -> None:
    # sgl-project/sglang#40082: templates without this role leave the instruction out
    template = "{% for m in messages %}{% if m['role'] in ['system', 'user', 'assistant'] %}" + CHATML.removeprefix(
        "{% for m in messages %}"
    ).replace("{% endfor %}", "{% endif %}{% endfor %}", 1)
    chat = [{"role": "developer", "content": "Answer in capitals."}, user("A lake?"), assistant("COMO.")]
    done = learned(jsonl(tmp_path / "a.jsonl", [{"messages": chat}]), byte_tokenizer(template))
    assert done.names("developer") or "Answer in capitals." in done.value[0][0]


def test_a_system_turn_in_the_middle_is_not_lost_in_silence(tmp_path: Path) -> None:
    # raullenchai/Rapid-MLX#1765: the template reads a system turn in front alone
    template = "{% for m in messages %}{% if m['role'] != 'system' or loop.first %}" + CHATML.removeprefix(
        "{% for m in messages %}"
    ).replace("{% endfor %}", "{% endif %}{% endfor %}", 1)
    chat = [user("A lake?"), assistant("Como."), {"role": "system", "content": "Now in capitals."}]
    chat += [user("A river?"), assistant("THE OB.")]
    done = learned(jsonl(tmp_path / "a.jsonl", [{"messages": chat}]), byte_tokenizer(template))
    assert done.names("system") or "Now in capitals." in done.value[0][0]


def test_answers_judged_bad_are_not_learned_in_silence(tmp_path: Path) -> None:
    # modelscope/ms-swift#1513, #4535: rows of KTO, where label: false marks an answer to avoid
    rows = [{"prompt": "A lake? ", "completion": "Como.", "label": True}]
    rows += [{"prompt": "A lake? ", "completion": "Shut up.", "label": False}]
    done = learned(jsonl(tmp_path / "a.jsonl", rows), byte_tokenizer())
    assert done.names("label") or not any("Shut up." in taught for _, taught in done.value)


def test_what_is_said_and_what_is_called_in_one_turn_are_both_learned(tmp_path: Path) -> None:
    # hiyouga/LlamaFactory#9107: content was empty after training once a turn had tool_calls
    call = {"type": "function", "function": {"name": "tide", "arguments": {"port": "Brest"}}}
    chat = [user("High water?"), assistant("Let me look.", tool_calls=[call])]
    chat += [{"role": "tool", "content": "six"}, assistant("At six.")]
    done = learned(jsonl(tmp_path / "a.jsonl", [{"messages": chat}]), byte_tokenizer(TOOLS))
    ((_, taught),) = done.value
    assert all(text in taught for text in ("Let me look.", '<call>tide {"port": "Brest"}</call>', "At six."))


def test_arguments_given_as_a_json_string_are_not_learned_with_their_quotes(tmp_path: Path) -> None:
    # oumi-ai/oumi#2599, huggingface/transformers#45419: OpenAI's wire format through a template that says tojson
    call = {"type": "function", "function": {"name": "tide", "arguments": '{"port": "Brest"}'}}
    chat = [user("High water?"), {"role": "assistant", "content": "", "tool_calls": [call]}]
    done = learned(jsonl(tmp_path / "a.jsonl", [{"messages": chat}]), byte_tokenizer(TOOLS))
    assert done.names("arguments") or '<call>tide {"port": "Brest"}</call>' in done.value[0][1]


def test_a_turn_without_content_is_not_learned_as_the_word_none() -> None:
    # oumi-ai/oumi#2603: some templates stringify None into the text they train on
    call = {"type": "function", "function": {"name": "tide", "arguments": {}}}
    template = "{% for m in messages %}{{ m['role'] ~ ': ' ~ m['content'] }}{% if m['tool_calls'] %}{{ '[tide]' }}"
    template += "{% endif %}{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    chat = [user("High water?"), {"role": "assistant", "content": None, "tool_calls": [call]}]
    done = learned_rows([{"messages": chat}], byte_tokenizer(template))
    assert done.names("content") or ("None" not in done.value[0][1] and "[tide]" in done.value[0][1])


def test_texts_and_lists_of_parts_may_stand_in_one_file(tmp_path: Path) -> None:
    # axolotl-ai-cloud/axolotl#3283, huggingface/datasets#7322: content is a string in one row, a list in the next
    parts = [{"type": "text", "text": "The Ob."}]
    rows = [{"messages": [user("A lake?"), assistant("Como.")]}]
    rows += [{"messages": [user("A river?"), {"role": "assistant", "content": parts}]}]
    done = learned(jsonl(tmp_path / "a.jsonl", rows), byte_tokenizer(CHATML))
    if not done.names("content", "2"):
        assert done.value is not None, done.refusal
        assert ["Como." in done.value[0][1], "The Ob." in done.value[1][1]] == [True, True]
        assert "type" not in done.value[1][1]


def test_the_rounds_before_of_an_instruction_are_not_lost_in_silence(tmp_path: Path) -> None:
    # hiyouga/LlamaFactory#3697, hkust-nlp/CodeIO#1: Alpaca's `history`, whose answers are learned, too
    row = {"instruction": "A river?", "input": "", "output": "The Ob.", "history": [["A lake?", "Como."]]}
    done = learned(jsonl(tmp_path / "a.jsonl", [row]), byte_tokenizer(CHATML))
    if not done.names("history"):
        ((whole, taught),) = done.value
        assert whole.index("A lake?") < whole.index("Como.") < whole.index("A river?") < whole.index("The Ob.")
        assert "The Ob." in taught
        assert "Como." in taught


@pytest.mark.parametrize("rows", [[{"prompt": "A lake?"}], [{"messages": [user("A lake?"), user("A river?")]}]])
def test_rows_without_anything_to_learn_end_the_run(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    # unslothai/unsloth#2095 (all labels -100), huggingface/trl#2217 (prompts alone: a loss of 0)
    tokenizer = byte_tokenizer(CHATML)
    model, teacher = tiny(vocabulary=len(tokenizer)), tiny(vocabulary=len(tokenizer), seed=1)
    path = jsonl(tmp_path / "a.jsonl", rows)
    done = outcome_of(lambda: steps_of(model, teacher, make_dataloader(load_dataset(path), batch_size=1), tokenizer))
    assert done.refusal


ANSWERS = ["Como.", "The Ob.", "Etna."]
TEMPLATES = {
    "end token after the last answer alone": (  # allenai/open-instruct#1800: Olmo's, "not prefix-stable"
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
        "{% if loop.last and m['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "answers without a header": (  # axolotl-ai-cloud/axolotl#2089, unslothai/unsloth#1290, #1262: Mistral's
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
    ),
    "turns append": CHATML,  # axolotl-ai-cloud/axolotl#1761, NVIDIA-NeMo/Megatron-Bridge#3359: the last one, or all
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_all_answers_of_a_chat_are_learned_and_nothing_of_the_questions(template: str, tmp_path: Path) -> None:
    asked = ["A lake?", "A river?", "A volcano?"]
    chat = [turn for q, a in zip(asked, ANSWERS, strict=True) for turn in (user(q), assistant(a))]
    done = learned(jsonl(tmp_path / "a.jsonl", [{"messages": chat}]), byte_tokenizer(template))
    assert done.value is not None, done.refusal
    taught = "".join(text for _, text in done.value)
    assert [answer in taught for answer in ANSWERS] == [True] * 3
    assert not any(question in taught for question in asked)


def test_a_turn_that_the_next_ones_header_ends_is_told_or_learned_with_it(tmp_path: Path) -> None:
    # PrimeIntellect-ai/prime-rl#2644: GLM closes a turn with <|observation|>, the first token of the next; unlearned
    template = "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}"
    template += "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    roles = [f"<|{role}|>" for role in ("user", "assistant", "tool")]
    chat = [user("High water?"), assistant("call tide"), {"role": "tool", "content": "six"}, assistant("At six.")]
    tokenizer = byte_tokenizer(template, more=roles)
    done = learned(jsonl(tmp_path / "a.jsonl", [{"messages": chat}]), tokenizer)
    assert done.told or done.refusal or done.value[0][1].startswith("call tide<|tool|>")
