"""The embedded lesson: the corpus, the teacher that knows it, and what `apt-model demo` shows."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from apt_model.cli import main
from apt_model.commands.lesson import DEMO_DEFAULTS
from apt_model.data.batch import to_batch
from apt_model.demo.lesson import SETTINGS, load_teacher, new_student, read_corpus
from apt_model.events.cards import ScoredObservation
from apt_model.events.records import ExamTaken
from apt_model.events.runfile import read_events
from apt_model.generation.talk import continue_text
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


def test_the_teacher_knows_every_sentence_of_the_corpus_and_every_character() -> None:
    teacher, tokenizer = load_teacher()
    for topic, lines in read_corpus().items():
        batch = to_batch(lines, tokenizer=tokenizer)
        assert not (batch.input_ids == tokenizer.unk_token_id).any(), topic
        with torch.no_grad():
            said = teacher(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1].argmax(-1)
        valid = batch.labels[:, 1:] != -100
        valid[:, :4] = False  # the beginning is given on a card
        right = (said == batch.labels[:, 1:]) | ~valid
        assert right[valid].float().mean() > 0.97, topic
        assert right.all(dim=1).float().mean() > 0.8, topic


def test_the_teacher_goes_on_in_chinese() -> None:
    teacher, tokenizer = load_teacher()
    sentence = read_corpus()["互联网"][0]
    assert continue_text(teacher, tokenizer, sentence[:8]) == sentence


def test_the_student_is_fresh_and_a_fraction_of_its_teacher() -> None:
    teacher, _ = load_teacher()
    student = new_student(teacher)
    assert student.num_parameters() < 0.25 * teacher.num_parameters()


def test_a_short_demo_leaves_a_student_that_talks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--max-steps", "6", "--sample-frequency", "3", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    (run,) = (tmp_path / "runs").iterdir()
    assert f"talk {run.relative_to(tmp_path)}" in shown
    assert shown.count("📍 Batch") == 2
    sentences = [line for lines in read_corpus().values() for line in lines]
    exams = [event for event in read_events(run) if isinstance(event, ExamTaken)]
    assert [len(exam.answers) for exam in exams] == [3, 3]
    assert all(f"{one.prompt}{one.teacher}" in sentences for exam in exams for one in exam.answers)
    assert main(["talk", str(run), "互联网", "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out.startswith("互联网")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_demo_takes_laziness_from_above_seventy_to_below_thirty_percent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    cards = [event for event in read_events(tmp_path / "run") if isinstance(event, ScoredObservation)]
    assert len(cards) >= 8
    assert cards[0].laziness > 0.7
    assert sum(card.laziness for card in cards[-4:]) / 4 < 0.3
    assert re.search("知识蒸馏训练完成.*显著进步", shown, flags=re.DOTALL)
    assert len({card.topic for card in cards}) >= 5


def test_the_help_of_demo_tells_the_demos_own_defaults() -> None:
    numbers = {key: value for key, value in SETTINGS.items() if key != "exam_prompts"}
    assert DEMO_DEFAULTS.split(", and ")[0].split(", ") == [f"{key} {value}" for key, value in numbers.items()]
    assert len(SETTINGS["exam_prompts"]) == 3
