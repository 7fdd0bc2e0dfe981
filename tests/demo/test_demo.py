"""The embedded lessons: their texts, taught and unseen, their teachers, and what `apt-model demo` makes of them."""

import math
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from apt_model.cli import main, make_parser
from apt_model.commands.lesson import DEMO_DEFAULTS
from apt_model.data.batch import to_batch
from apt_model.demo.lesson import SETTINGS, lesson_of, load_teacher, new_student, read_corpus, read_unseen
from apt_model.events.cards import ScoredObservation
from apt_model.events.records import EpochFinished, ExamTaken, StepDone
from apt_model.events.runfile import read_events
from apt_model.generation.talk import continue_text
from apt_model.models.pretrained import load_model
from apt_model.teaching.topics import default_topics, detect_topic


def test_the_corpus_has_six_hundred_different_sentences_over_the_eight_topics() -> None:
    corpus = read_corpus()
    sentences = [sentence for lines in corpus.values() for sentence in lines]
    assert list(corpus) == list(default_topics())
    assert min(len(lines) for lines in corpus.values()) >= 60
    assert len(set(sentences)) == len(sentences) >= 600
    assert all(sentence.endswith("。") and 15 <= len(sentence) <= 46 for sentence in sentences)
    assert max(Counter(sentence[:3] for sentence in sentences).values()) <= 5, "no template that shows"


def test_the_topics_of_the_corpus_are_found() -> None:
    corpus = read_corpus()
    found = [detect_topic(line, default_topics()) == topic for topic, lines in corpus.items() for line in lines]
    assert sum(found) / len(found) > 0.9


LANGUAGES = ("zh", "en")


def lines_of(corpus: dict[str, list[str]]) -> list[str]:
    return [line for lines in corpus.values() for line in lines]


def perplexity(model: Any, tokenizer: Any, texts: list[str]) -> float:
    """Over all tokens after the first, by torch's own cross-entropy."""
    total, count = 0.0, 0
    for start in range(0, len(texts), 32):
        batch = to_batch(texts[start : start + 32], tokenizer=tokenizer)
        with torch.no_grad():
            logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1]
        labels = batch.labels[:, 1:]
        total += cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").item()
        count += int((labels != -100).sum())
    return math.exp(total / count)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_teacher_knows_every_character_of_both_texts(lang: str) -> None:
    _, tokenizer = load_teacher(lang)
    batch = to_batch(lines_of(read_corpus(lang)) + lines_of(read_unseen(lang)), tokenizer=tokenizer)
    assert not ((batch.input_ids == tokenizer.unk_token_id) & (batch.labels != -100)).any()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_teacher_knows_the_language_and_not_just_its_lines(lang: str) -> None:
    teacher, tokenizer = load_teacher(lang)
    written = lines_of(read_corpus(lang))[-600:]
    unseen = perplexity(teacher, tokenizer, lines_of(read_unseen(lang)))
    assert unseen < 12, "its vocabulary, which a guess would give, is 2,102 and 512"
    assert unseen / perplexity(teacher, tokenizer, written) < 1.3


@pytest.mark.parametrize("lang", LANGUAGES)
def test_nothing_unseen_stands_in_what_is_taught(lang: str) -> None:
    pieces = [{text[i : i + 5] for i in range(len(text) - 4)} for text in lines_of(read_corpus(lang))]
    unseen = lines_of(read_unseen(lang))
    assert len(unseen) >= 150
    for text in unseen:
        own = {text[i : i + 5] for i in range(len(text) - 4)}
        assert max(len(own & other) for other in pieces) < 0.4 * len(own), text


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_exams_ask_beginnings_of_unseen_sentences(lang: str) -> None:
    for prompt in lesson_of(lang).settings["exam_prompts"]:
        assert any(line.startswith(prompt) for line in lines_of(read_unseen(lang)))
        assert not any(prompt in line for line in lines_of(read_corpus(lang)))


def test_the_teachers_go_on_in_their_languages() -> None:
    teacher, tokenizer = load_teacher()
    said = continue_text(teacher, tokenizer, "短跑是一种")
    assert said.endswith("。")
    assert re.fullmatch("[\u4e00-\u9fff，。、；：“”]+", said)
    english, of_english = load_teacher("en")
    assert continue_text(english, of_english, "Once upon a time,").startswith("Once upon a time, there was a")


def test_a_locale_file_of_ones_own_gets_the_chinese_lesson(tmp_path: Path) -> None:
    assert read_corpus(str(tmp_path / "my.toml")) == read_corpus() == read_corpus("zh") != read_corpus("en")


def test_the_topics_of_the_stories_are_found_by_the_lessons_own_keywords() -> None:
    corpus = read_corpus("en")
    assert max(len(lines) for lines in corpus.values()) < 0.5 * len(lines_of(corpus))
    assert len(corpus.get("通用", [])) < 0.1 * len(lines_of(corpus))


@pytest.mark.parametrize(("lang", "layers"), [("zh", 2), ("en", 3)])
def test_the_student_is_fresh_and_a_fifth_of_its_teacher(lang: str, layers: int) -> None:
    teacher, _ = load_teacher(lang)
    student = new_student(teacher)
    assert student.config.num_hidden_layers == layers
    assert 0.18 < student.num_parameters() / teacher.num_parameters() < 0.22


@pytest.mark.parametrize(("lang", "beginning"), [("zh", "互联网"), ("en", "One day")])
def test_a_short_demo_leaves_a_student_that_talks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, lang: str, beginning: str
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--lang", lang, "--max-steps", "6", "--sample-frequency", "3", "--device", "cpu"]
    assert main(["demo", *flags]) == 0
    shown = capsys.readouterr().out
    (run,) = (tmp_path / "runs").iterdir()
    assert all(f"{command} {run.relative_to(tmp_path)}" in shown for command in ("talk", "watch", "report", "replay"))
    events = list(read_events(run))
    cards = [event for event in events if isinstance(event, ScoredObservation)]
    assert len(cards) == 2
    assert all(any(line.startswith(card.given) for line in lines_of(read_corpus(lang))) for card in cards)
    exams = [event for event in events if isinstance(event, ExamTaken)]
    assert [len(exam.answers) for exam in exams] == [3, 3]
    assert {one.prompt for exam in exams for one in exam.answers} == {*lesson_of(lang).settings["exam_prompts"]}
    (epoch,) = [event for event in events if isinstance(event, EpochFinished)]
    assert epoch.validation is not None
    assert main(["talk", str(run), beginning, "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out.startswith(beginning)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_demos_student_agrees_with_its_teacher_on_half_of_the_unseen_text(tmp_path: Path, lang: str) -> None:
    assert main(["demo", "--lang", lang, "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    events = list(read_events(tmp_path / "run"))
    cards = [event for event in events if isinstance(event, ScoredObservation)]
    assert 8 <= len(cards) <= 12
    assert sum(card.laziness for card in cards[-3:]) / 3 < 0.7 * cards[0].laziness
    assert len({card.topic for card in cards}) >= 4
    epochs = [event for event in events if isinstance(event, EpochFinished)]
    assert [epoch.validation.agreement for epoch in epochs if epoch.validation][-1] >= 0.5
    losses = [event.loss for event in events if isinstance(event, StepDone)]
    tenths = [sum(losses[i : i + len(losses) // 10]) for i in range(0, len(losses) // 10 * 10, len(losses) // 10)]
    assert all(later < 1.02 * earlier for earlier, later in pairwise(tenths)), "the loss falls evenly"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_demos_material_is_its_teacher_and_its_texts_and_is_not_written_over_anything(
    lang: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--lang", lang, "--material", str(tmp_path / "lesson")]) == 0
    command = capsys.readouterr().out.partition(" distill ")[2].split()
    model, _, _ = load_model(tmp_path / "lesson" / "teacher")
    theirs, _ = load_teacher(lang)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), theirs.parameters(), strict=True))
    for flag, name, texts in (("--data", "book.txt", read_corpus), ("--validation-data", "unseen.txt", read_unseen)):
        assert Path(command[command.index(flag) + 1]) == tmp_path / "lesson" / name
        assert (tmp_path / "lesson" / name).read_text("utf-8").splitlines() == lines_of(texts(lang))
    make_parser().parse_args(["distill", *command])
    assert main(["demo", "--lang", lang, "--material", str(tmp_path / "lesson")]) == 5
    assert "is not empty" in capsys.readouterr().err


def test_the_help_of_demo_tells_the_demos_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--help-all", "--lang", "en"])
    shown, english = " ".join(capsys.readouterr().out.split()), lesson_of("en").settings
    assert len(SETTINGS["exam_prompts"]) == 3
    assert DEMO_DEFAULTS.keys() == SETTINGS.keys() == english.keys()
    for key, value in SETTINGS.items():
        if key != "exam_prompts":
            other = "" if english[key] == value else f"; with --lang en: {english[key]}"
            assert DEMO_DEFAULTS[key] == f"{value}{other}"
        assert f"(default: {DEMO_DEFAULTS[key]})" in shown
    assert "(default: 4.0)" not in shown
