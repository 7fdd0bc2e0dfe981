"""Every published form of a conversation becomes the turns it means; what it says of itself is honoured or refused."""

import json
from typing import Any

import pytest

from apt_model.data.turns import chat_of
from apt_model.errors import DataError

ASKED = [{"role": "user", "content": "A river?"}]
ANSWERED = [{"role": "assistant", "content": "The Loire."}]


def said(row: dict[str, Any]) -> list[tuple[str, Any, bool]]:
    chat = chat_of(row)
    assert chat is not None
    return [(turn["role"], turn["content"], learned) for turn, learned in zip(chat.turns, chat.learned, strict=True)]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": ASKED + ANSWERED},
        {"messages": json.dumps(ASKED + ANSWERED)},  # a cell of a csv file
        {"conversations": [{"from": "human", "value": "A river?"}, {"from": "gpt", "value": "The Loire."}]},
        {"conversations": [{"from": "user", "value": "A river?"}, {"from": "ChatGPT", "value": "The Loire."}]},
        {"conversations": [{"role": "User", "content": "A river?"}, {"role": "ASSISTANT", "content": "The Loire."}]},
        {"messages": [{"role": "user", "content": "A river?"}, {"role": "model", "content": "The Loire."}]},
        {"prompt": ASKED, "completion": ANSWERED},
        {"prompt": ASKED, "completion": "The Loire."},
        {"prompt": "A river?", "completion": ANSWERED},
        {"instruction": "A river?", "input": "", "output": "The Loire."},
        {"instruction": "A river?", "input": None, "output": "The Loire.", "system": ""},
        {"question": "A river?", "answer": "The Loire."},
        {"query": "A river?", "response": "The Loire.", "history": []},
        {"prompt": "A river?", "response": "The Loire."},
    ],
)
def test_each_form_of_a_question_with_its_answer_means_the_same(row: dict[str, Any]) -> None:
    assert said(row) == [("user", "A river?", False), ("assistant", "The Loire.", True)]


def test_an_alpaca_row_has_its_input_below_its_instruction_and_its_history_before_it() -> None:
    row = {"instruction": "Sort.", "input": "b, a", "output": "a, b", "system": "Be terse.", "history": [["Hi", "Ho"]]}
    assert said(row) == [
        ("system", "Be terse.", False),
        ("user", "Hi", False),
        ("assistant", "Ho", True),
        ("user", "Sort.\nb, a", False),
        ("assistant", "a, b", True),
    ]


def test_of_a_prompt_and_a_completion_in_turns_the_completion_alone_is_learned() -> None:
    row = {"prompt": ASKED + ANSWERED + ASKED, "completion": ANSWERED + ASKED + ANSWERED, "system": "Be terse."}
    assert [learned for _, _, learned in said(row)] == [False, False, False, False, True, False, True]


@pytest.mark.parametrize(
    "flag",
    [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"training": False}, {"loss": False}, {"loss_scale": 0}],
)
def test_a_turn_that_says_so_is_not_learned_and_its_flag_does_not_reach_the_template(flag: dict[str, Any]) -> None:
    chat = chat_of({"messages": [*ASKED, {**ANSWERED[0], **flag}, *ASKED, {**ANSWERED[0], "weight": 1}]})
    assert chat is not None
    assert chat.learned == [False, False, False, True]
    assert all(set(turn) == {"role", "content"} for turn in chat.turns)


def test_tools_come_as_openai_or_sharegpt_write_them_and_reach_the_template() -> None:
    tool = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
    whole = {"type": "function", "function": tool}
    for tools in ([whole], [tool], json.dumps([tool])):
        chat = chat_of({"messages": ASKED + ANSWERED, "tools": tools, "chat_template_kwargs": '{"terse": true}'})
        assert chat is not None
        assert chat.given == {"tools": [whole], "terse": True}
    system = {"role": "system", "content": "Help.", "tools": json.dumps([whole])}
    chat = chat_of({"messages": [system, *ASKED, *ANSWERED], "documents": None, "tools": []})
    assert chat is not None
    assert chat.given == {"tools": [whole]}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"messages": []}, "messages of a row has no turn"),
        ({"messages": None}, "messages of a row is no list of turns"),
        ({"messages": "Hello"}, "messages of a row is no list of turns"),
        ({"messages": [*ASKED, {"content": "who?"}]}, "turn 2 of a chat has no role"),
        ({"messages": [*ASKED, {"role": "assistant", "content": None}]}, "content of turn 2 of a chat is no text"),
        ({"messages": [*ASKED, {"role": "assistant", "content": 5}]}, "content of turn 2 of a chat is no text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "a"}]}]},
            "turn 1 .* got a part 'image_url'",
        ),
        ({"messages": [*ASKED, {**ANSWERED[0], "weight": 0.5}]}, "turn 2 of a chat has a weight between; got 0.5"),
        ({"messages": [*ASKED, {**ANSWERED[0], "train_detail": [{"begin_offset": 0}]}]}, "turn 2 .* in parts"),
        ({"messages": [{"role": "system", "content": "a"}], "system": "b"}, "a system column and a system turn"),
        ({"messages": ASKED, "tools": "weather"}, "tools of a row is no list of objects"),
        ({"messages": ASKED, "chat_template_kwargs": [1]}, "chat_template_kwargs of a row is no object"),
        ({"instruction": "a", "output": 5}, "output of a row is no string; got int"),
        ({"instruction": "a", "output": "b", "history": [["a"]]}, "history of a row is no list of pairs"),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            "no column to learn from; .* Fix: rename chosen to completion",
        ),
        ({"title": "a", "date": "b"}, "no column to learn from; got date, title, .* Fix: rename the columns, as in"),
        ({"title": "a", "body": "b"}, "Fix: rename the columns: --columns text=body, if that is what they are"),
        ({"dialog": [], "id": 1}, "Fix: rename the columns: --columns messages=dialog,"),
        ({"Prompt": "a", "Completion": "b"}, "--columns question=Prompt answer=Completion,"),
        ({"problem": "a", "solution": "b"}, "--columns question=problem answer=solution,"),
    ],
)
def test_what_cannot_be_honoured_is_refused_and_named(row: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told):
        chat_of(row)


def test_the_older_function_call_of_openai_is_a_tool_call_and_json_in_a_string_too() -> None:
    call = {"name": "f", "arguments": "{}"}
    for turn in ({"function_call": call}, {"tool_calls": json.dumps([{"type": "function", "function": call}])}):
        chat = chat_of({"messages": [*ASKED, {"role": "assistant", "content": None, **turn}]})
        assert chat is not None
        assert [one.get("function", one)["name"] for one in chat.turns[1]["tool_calls"]] == ["f"]
        assert "function_call" not in chat.turns[1]
    for wrong in ([{"function": {}}], ["f"], {"name": "f"}, "f()"):
        with pytest.raises(DataError, match="tool_calls of turn 2 of a chat are no calls"):
            chat_of({"messages": [*ASKED, {"role": "assistant", "content": "", "tool_calls": wrong}]})


def test_a_system_prompt_of_orca_is_the_system_turn_and_the_same_words_twice_are_one() -> None:
    row = {"system_prompt": "Be terse.", "question": "A river?", "response": "The Loire."}
    assert said(row)[0] == ("system", "Be terse.", False)
    turns = [{"role": "system", "content": "Be terse."}, *ASKED, *ANSWERED]
    assert said({"messages": turns, "system_prompt": "Be terse."}) == said(row)
    with pytest.raises(DataError, match="a row has two system columns"):
        chat_of({**row, "system": "Be long."})


def test_a_chosen_answer_that_has_its_prompt_before_it_does_not_ask_twice() -> None:
    for prompt in ("A river?", ASKED):  # UltraFeedback, and TRL's form of it
        assert said({"prompt": prompt, "completion": ASKED + ANSWERED}) == said({"messages": ASKED + ANSWERED})


@pytest.mark.parametrize(
    ("row", "renaming"),
    [({"prompt": "p"}, "completion=chosen"), ({"question": "p"}, "answer=chosen"), ({}, "messages=chosen")],
)
def test_rows_of_preferences_are_refused_with_a_renaming_that_works(row: dict[str, Any], renaming: str) -> None:
    with pytest.raises(DataError, match=f"--columns {renaming}"):
        chat_of({**row, "chosen": ASKED + ANSWERED, "rejected": ASKED + ANSWERED})
    ours = renaming.partition("=")[0]
    answer = "The Loire." if row.get("question") else ASKED + ANSWERED
    assert chat_of({**row, ours: answer}) is not None


@pytest.mark.parametrize("row", [{"question": "A river?", "answer": None}, {"instruction": "A river?", "output": None}])
def test_an_answer_that_is_null_is_refused_by_its_name(row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=f"{list(row)[1]} of a row is null"):
        chat_of(row)
