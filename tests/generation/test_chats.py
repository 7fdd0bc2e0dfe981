"""A student that knows four chats by heart: asked in its template it gives the answers, and stops where they end."""

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from apt_model.cli import main
from apt_model.errors import DataError
from apt_model.generation.evaluator import evaluate_text_quality
from apt_model.generation.talk import Conversation, continue_text
from apt_model.models.pretrained import save_model
from tests.chats import CHATML, FACTS, IM_END, NO_END, THINKING, byte_level, chat, learn_by_heart, small_llama

CHATS = [chat(question, answer) for question, answer in FACTS.items()]


@pytest.fixture(scope="module")
def learned() -> tuple[Any, Any]:
    """By a tokenizer whose EOS token is not the end of a turn, as in ChatML on a base model."""
    tokenizer = byte_level(CHATML)
    return learn_by_heart(small_llama(), tokenizer, CHATS), tokenizer


@pytest.fixture(scope="module")
def student(learned: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("student")
    save_model(*learned, path)
    return path


@pytest.mark.parametrize("eos", ["</s>", "<|im_end|>"])
def test_what_is_known_by_heart_is_a_perfect_answer(eos: str, learned: tuple[Any, Any]) -> None:
    found = evaluate_text_quality(learned[0], [[{"messages": one} for one in CHATS]], byte_level(CHATML, eos=eos))
    assert found["chrf"] == pytest.approx(100)
    assert found["answers"] == len(FACTS)


def test_talk_asks_in_the_template_and_says_so(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["talk", str(student), "A lake?", "A town?", "--lang", "en"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["Como.", "Bath."]
    assert "asked in the chat template (--plain-text continues the text instead)\n" in shown.err


def test_talk_completes_plain_text_if_told_to(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(student), AutoTokenizer.from_pretrained(student)
    ids = tokenizer("<s>A lake", return_tensors="pt")
    said = model.generate(**ids, max_new_tokens=9, do_sample=False, eos_token_id=[2, IM_END])
    expected = tokenizer.decode(said[0], skip_special_tokens=True)
    assert main(["talk", str(student), "A lake", "--plain-text", "--max-new-tokens", "9", "--lang", "en"]) == 0
    shown = capsys.readouterr()
    assert shown.out == expected.replace("\n", "⏎") + "\n"
    assert "template" not in shown.err


def test_lines_that_are_piped_in_are_chats_of_their_own(
    student: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("A lake?\nA town?\n\n"))
    assert main(["talk", str(student)]) == 0
    assert capsys.readouterr().out.splitlines() == ["Como.", "Bath."]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_turns_are_kept(
    student: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        "apt_model.generation.talk.question_ids",
        lambda chat, _, **__: asked.append([*chat.turns]) or [1, 2, 3],  # type: ignore[func-returns-value]
    )
    monkeypatch.setattr(sys, "stdin", Terminal("A lake?\nA town?\n\n"))
    assert main(["talk", str(student), "--max-new-tokens", "2", "--lang", "en"]) == 0
    assert [[turn["role"] for turn in turns] for turns in asked] == [["user"], ["user", "assistant", "user"]]
    assert capsys.readouterr().out.startswith("Ask, and the student answers")


def test_a_second_question_is_answered_in_the_light_of_the_first() -> None:
    tokenizer, told = byte_level(CHATML), list[str]()
    two = [chat("A lake?", "Como.") + chat("Why?", "Big."), chat("A town?", "Bath.") + chat("Why?", "Old.")]
    model = learn_by_heart(small_llama(), tokenizer, two)
    talk = Conversation(model, tokenizer, tell=lambda key, **_: told.append(key))
    assert [talk.ask("A town?"), talk.ask("Why?")] == ["Bath.", "Old."]
    talk.begin()
    assert [talk.ask("A lake?"), talk.ask("Why?")] == ["Como.", "Big."]
    assert told == []
    model.config.max_position_embeddings = 50  # a question more than one answer ago no longer fits
    assert talk.ask("A town?") == "Bath."
    assert told == ["forgotten_turns"] * 2
    with pytest.raises(DataError, match="the prompt is too long for the model"):
        talk.ask("?" * 80)


def test_a_thought_that_the_template_opens_is_given_and_its_end_is_said() -> None:
    tokenizer = byte_level(CHATML)
    thoughtful = [chat("A lake?", "<think>\nhm</think>Como.")]
    model = learn_by_heart(small_llama(), tokenizer, thoughtful)
    tokenizer.chat_template = THINKING
    said = Conversation(model, tokenizer, max_new_tokens=len("hm</think>Como.")).ask("A lake?")
    assert said == "hm</think>Como."


def test_without_a_template_talk_continues_the_prompt_as_before(
    learned: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(learned[0], byte_level(None), tmp_path)
    assert main(["talk", str(tmp_path), "A lake", "--max-new-tokens", "5"]) == 0
    shown = capsys.readouterr()
    said = continue_text(learned[0], byte_level(None), "A lake", max_new_tokens=5)
    assert shown.out == said.replace("\n", "⏎") + "\n"
    assert "模板" not in shown.err


def test_a_template_without_an_end_token_leaves_the_answer_to_its_length(learned: tuple[Any, Any]) -> None:
    tokenizer = byte_level(NO_END)
    said = Conversation(learned[0], tokenizer, max_new_tokens=4).ask("A lake?")
    assert len(tokenizer(said)["input_ids"]) <= 4
