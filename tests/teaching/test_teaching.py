"""Similarity, laziness, lights, remarks, topics, report cards, verdicts."""

import difflib
import math
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_model.config.sections import DisplayConfig
from apt_model.events.cards import Observation, ScoredObservation
from apt_model.events.laziness import LazinessScale, Light
from apt_model.events.records import EpochFinished, RunFinished, RunStarted, StepDone
from apt_model.events.results import Grade
from apt_model.events.sinks import Guard
from apt_model.i18n import Phrases
from apt_model.render import sentences
from apt_model.teaching.comments import FITTING, fitting, grade
from apt_model.teaching.laziness import laziness, light
from apt_model.teaching.scorer import LessonScorer
from apt_model.teaching.similarity import text_similarity
from apt_model.teaching.topics import default_topics, detect_topic
from tests.events.test_events import EVENTS, STEP

SEEN = Observation(
    run_id="r",
    step=2,
    epoch=1,
    batch=0,
    loss=1.8765,
    given="互",
    teacher_text="联网是全球最大的计算机网络",
    student_text="联网是全球的网络",
    input_text="互联网是全球最大的计算机网络",
    normalised_kl=0.5,
    agreement=0.5,
    tokens=13,
)
EPOCH = EpochFinished(
    run_id="r", step=1, epoch=1, num_epochs=2, mean_loss=1.0, tokens=9, skipped_batches=0, seconds=1.0
)
END = EVENTS[-1]


def score(scorer: LessonScorer, **changes: Any) -> ScoredObservation:
    card = scorer(replace(SEEN, **changes))
    assert isinstance(card, ScoredObservation)
    return card


def test_similarity_is_difflibs_ratio_two_matches_over_total_length() -> None:
    assert text_similarity("abcd", "bcde") == pytest.approx(2 * 3 / 8)
    assert (text_similarity("教师", "教师"), text_similarity("教师", "学生"), text_similarity("", "")) == (
        1.0,
        0.0,
        1.0,
    )


@given(st.text(alphabet="ab 的一是不", max_size=60), st.text(alphabet="ab 的一是不", max_size=60))
def test_similarity_is_the_standard_librarys_to_the_last_bit(teacher: str, student: str) -> None:
    assert text_similarity(teacher, student) == difflib.SequenceMatcher(None, teacher, student, autojunk=False).ratio()


def test_similarity_looks_at_a_thousand_characters_at_most() -> None:
    assert text_similarity("a" * 1000 + "b" * 10**6, "a" * 1000 + "c" * 10**6) == 1.0


def test_laziness_is_sixty_percent_text_and_forty_percent_divergence() -> None:
    assert laziness(1.0, 0.0) == 0.0
    assert laziness(0.0, 1.0) == 1.0
    assert laziness(0.25, 0.5) == pytest.approx(0.6 * 0.75 + 0.4 * 0.5)


@given(st.floats(), st.floats())
def test_laziness_stays_within_bounds_whatever_was_measured(similarity: float, kl: float) -> None:
    assert 0.0 <= laziness(similarity, kl) <= 1.0
    assert laziness(math.nan, math.nan) == 1.0


@pytest.mark.parametrize(
    ("value", "colour"),
    [(0.0, "green"), (0.2999, "green"), (0.3, "yellow"), (0.5999, "yellow"), (0.6, "red"), (1.0, "red")],
)
def test_lights_change_at_thirty_and_sixty_percent(value: float, colour: str) -> None:
    assert light(value) == colour


@pytest.mark.parametrize(
    ("lazy", "loss", "expected"),
    [
        (0.19, 0.49, "excellent"),
        (0.19, 0.51, "good"),
        (0.2891, 0.9234, "good"),
        (0.5237, 1.8765, "fair"),
        (0.1, 1.5, "fair"),
        (0.6, 0.1, "needs_work"),
        (0.1, 2.0, "needs_work"),
        (0.1, math.nan, "needs_work"),
    ],
)
def test_a_grade_needs_both_thresholds_of_the_guides_table(lazy: float, loss: float, expected: str) -> None:
    assert grade(lazy, loss, DisplayConfig()) == expected


@pytest.mark.parametrize(
    ("found", "colour", "expected"),
    [("needs_work", "yellow", "fair"), ("needs_work", "green", "good"), ("excellent", "yellow", "good")],
)
def test_a_grade_that_the_light_contradicts_becomes_the_nearest_that_fits(
    found: Grade, colour: Light, expected: Grade
) -> None:
    assert fitting(found, colour) == expected


def test_the_first_remarks_are_the_guides_own_and_variants_go_round() -> None:
    zh = Phrases.load("zh")
    assert zh.variant("remarks.excellent", 0) == "🌟 优秀！完全掌握了教师的知识"
    assert zh.variant("remarks.good", 0) == "👍 很好！大部分知识已掌握"
    assert zh.variant("remarks.fair", 0) == "📚 主题不够熟练，需要再多学习"
    assert zh.variant("remarks.needs_work", 0) == "😓 偷懒太多了！需要认真学习"
    for every in (1, 20, 50):
        said = [zh.variant("remarks.good", every * card) for card in range(16)]
        assert set(said) == set(zh.variants("remarks.good"))
        assert said == [zh.variant("remarks.good", every * card) for card in range(16)]


@given(st.floats(0, 1), st.floats())
def test_a_remark_never_contradicts_the_light(lazy: float, loss: float) -> None:
    found = fitting(grade(lazy, loss, DisplayConfig()), light(lazy))
    assert found in FITTING[light(lazy)]
    said = LessonScorer(DisplayConfig(), {}).comment(100 * lazy, loss)
    assert said[0] in {"green": "🌟👍", "yellow": "👍📚", "red": "😓"}[light(lazy)]


def test_a_copy_of_its_teacher_is_excellent_whatever_the_loss_cannot_fall_below() -> None:
    same = {"student_text": SEEN.teacher_text, "normalised_kl": 0.0, "agreement": 1.0}
    card = score(LessonScorer(DisplayConfig(), {}), **same, loss=0.3 * 3.0, gain=0.0)
    assert (card.laziness, card.light, card.grade) == (0.0, "green", "excellent")
    assert card.remark in Phrases.load("zh").variants("remarks.excellent")


def test_perfection_is_praised_only_where_no_error_is_to_be_seen() -> None:
    scorer, zh = LessonScorer(DisplayConfig(), {}), Phrases.load("zh")
    near = {"student_text": SEEN.teacher_text[:-1] + "路", "normalised_kl": 0.05, "agreement": 0.9, "gain": 0.1}
    for step in range(2, 40):
        assert score(scorer, **near, step=step).remark in zh.variants("remarks.nearly")
    beside = {**near, "student_text": SEEN.teacher_text}  # the texts agree, but not every best guess did
    assert score(scorer, **beside).remark in zh.variants("remarks.nearly")


def test_before_the_first_step_nobody_is_marked() -> None:
    scorer, zh = LessonScorer(DisplayConfig(), {}), Phrases.load("zh")
    assert score(scorer, step=1).remark in zh.variants("remarks.before")
    assert score(scorer, step=0, source="probe").remark in zh.variants("remarks.before")
    assert score(scorer, step=1, source="validation").remark in zh.variants("remarks.fair")  # read after that step


def test_a_student_that_repeats_its_input_is_called_a_parrot() -> None:
    scorer, zh = LessonScorer(DisplayConfig(), {}), Phrases.load("zh")
    assert score(scorer, echo=0.8, agreement=0.1).remark in zh.variants("remarks.parrot")
    assert score(scorer, echo=0.8, agreement=0.9).remark not in zh.variants("remarks.parrot")  # its teacher does too


def test_a_student_that_follows_word_by_word_but_goes_astray_alone_is_told_just_that() -> None:
    scorer, zh = LessonScorer(DisplayConfig(), {}), Phrases.load("zh")
    other = {"student_text": "甲乙", "teacher_text": "丙丁", "normalised_kl": 1.0, "card_text": "continued"}
    assert score(scorer, **other, agreement=0.6).remark in zh.variants("remarks.astray")
    assert score(scorer, **other, agreement=0.4).remark in zh.variants("remarks.needs_work")
    assert score(scorer, **{**other, "card_text": "predicted"}, agreement=0.6).remark in zh.variants(
        "remarks.needs_work"
    )


def test_what_repeats_itself_is_a_loop_and_only_what_repeats_its_beginning_a_parrot() -> None:
    scorer, zh = LessonScorer(DisplayConfig(), {}), Phrases.load("zh")
    looping = {"echo": 1.0, "agreement": 0.0, "card_text": "continued", "given": "互联网"}
    assert score(scorer, **looping, student_text="网网网网").remark in zh.variants("remarks.parrot")
    assert score(scorer, **looping, student_text="的的的的").remark in zh.variants("remarks.loop")
    assert score(scorer, **looping, student_text=" ").remark in zh.variants("remarks.silent")


def test_without_text_the_similarity_is_of_the_token_ids_and_the_card_says_so() -> None:
    card = score(
        LessonScorer(DisplayConfig(), {}),
        teacher_text="文本 (tokens: 4)",
        student_text="文本 (tokens: 4)",
        token_ids=((1, 2, 3, 4), (1, 2, 9, 8)),
    )
    assert (card.similarity, card.compared) == (0.5, "tokens")


def test_the_topic_with_most_hits_wins_the_first_listed_a_tie_and_none_is_general() -> None:
    topics = {"甲": ["苹果", "apple"], "乙": ["梨子", "ai"]}
    assert detect_topic("苹果 梨子 梨子", topics) == "乙"
    assert detect_topic("苹果 梨子", topics) == "甲"
    assert detect_topic("香蕉", topics) == "通用"
    assert detect_topic("", {}) == "通用"


def test_an_ascii_keyword_is_a_whole_word_in_any_case() -> None:
    topics = {"甲": ["ai"]}
    assert detect_topic("she said again", topics) == "通用"
    assert detect_topic("用AI学习", topics) == "甲"


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("互联网是全球最大的计算机网络，连接了数十亿设备", "互联网"),
        ("人工智能是计算机科学的一个分支，致力于创建智能机器", "人工智能"),
        ("火箭把卫星送入轨道，航天技术又进了一步", "科技"),
        ("医生建议患者按时服药，并定期到医院复查", "医疗"),
        ("老师在课堂上鼓励学生提问，学校也重视阅读", "教育"),
        ("通货膨胀使货币贬值，银行提高了利率", "经济"),
        ("京剧是中国的传统戏曲，脸谱各有含义", "文化"),
        ("足球比赛中，守门员可以用手接球", "体育"),
        ("今天天气不错", "通用"),
    ],
)
def test_the_guides_eight_topics_are_found(text: str, topic: str) -> None:
    assert list(default_topics()) == ["互联网", "人工智能", "科技", "医疗", "教育", "经济", "文化", "体育"]
    assert detect_topic(text, default_topics()) == topic


def test_no_keyword_stands_twice_in_a_topic_or_in_two() -> None:
    everything = [keyword for keywords in default_topics().values() for keyword in keywords]
    assert min(len(keywords) for keywords in default_topics().values()) >= 50
    assert [keyword for keyword in set(everything) if everything.count(keyword) > 1] == []


def test_where_keywords_overlap_the_longest_counts() -> None:
    topics = {"网": ["网络"], "智": ["神经网络"]}
    assert detect_topic("神经网络", topics) == "智"
    assert detect_topic("神经网络和网络、网络", topics) == "网"


def test_a_topic_added_later_is_used_from_the_next_card_on() -> None:
    topics = default_topics()
    scorer = LessonScorer(DisplayConfig(), topics)
    assert score(scorer).topic == "互联网"
    topics["网络史"] = ["互联网", "网络", "计算机", "全球", "最大", "联网"]
    assert score(scorer).topic == "网络史"


def test_the_topic_is_of_the_whole_sample_and_not_of_what_the_teacher_says() -> None:
    scorer = LessonScorer(DisplayConfig(), default_topics())
    card = score(scorer, input_text="京剧和昆曲，" + "一" * 5_000 + "足球、篮球、排球", teacher_text="银行，银行，银行")
    assert card.topic == "体育"
    assert len(card.input_text) == 1_000
    assert (
        score(scorer, input_text="足球，银行", teacher_text="银行，银行").topic == "经济"
    )  # one each: the first listed


def test_a_card_says_what_was_measured() -> None:
    card = score(LessonScorer(DisplayConfig(), default_topics()))
    assert card.similarity == pytest.approx(2 * 8 / 21)
    assert card.laziness == pytest.approx(0.6 * (1 - 16 / 21) + 0.4 * 0.5)
    assert (card.light, card.topic) == ("yellow", "互联网")
    assert card.remark in Phrases.load("zh").variants("remarks.fair")


def test_a_remark_of_ones_own_is_used_and_when_it_fails_the_built_in_one_stands_in() -> None:
    own = LessonScorer(DisplayConfig(), {}, comment=lambda percent, loss: f"{percent:.0f}/{loss}")
    assert score(own).remark == "34/1.8765"
    guard = Guard()
    broken = LessonScorer(DisplayConfig(), {}, comment=lambda percent, loss: str(1 / 0), guard=guard)
    assert score(broken).remark in Phrases.load("zh").variants("remarks.fair")
    assert guard.failures == {"generate_comment": "generate_comment: ZeroDivisionError: division by zero"}


def test_report_cards_hold_means_and_the_five_most_frequent_topics() -> None:
    scorer = LessonScorer(DisplayConfig(), {name: [name] for name in "甲乙丙丁戊己"})
    for name, count in zip("甲乙丙丁戊己", (1, 2, 3, 4, 5, 6), strict=True):
        for _ in range(count):
            score(scorer, teacher_text=name, student_text=name, input_text=name, normalised_kl=count / 10)
    epoch = scorer(EPOCH)
    assert isinstance(epoch, EpochFinished)
    assert [(topic.topic, topic.samples) for topic in epoch.topics] == [
        ("己", 6),
        ("戊", 5),
        ("丁", 4),
        ("丙", 3),
        ("乙", 2),
    ]
    assert epoch.topics[0].mean_laziness == pytest.approx(0.4 * 0.6)
    assert epoch.samples == 21
    assert epoch.mean_laziness == pytest.approx(0.4 * sum(n * n / 10 for n in range(1, 7)) / 21)
    second = scorer(EPOCH)
    assert isinstance(second, EpochFinished)
    assert (second.samples, second.mean_laziness, second.topics) == (0, None, ())


def test_statistics_are_the_guides_and_safe_before_the_first_card() -> None:
    scorer = LessonScorer(DisplayConfig(), default_topics())
    assert scorer.stats() == {"total_samples": 0, "avg_laziness": 0.0, "topic_distribution": {}, "epoch_laziness": []}
    score(scorer, normalised_kl=math.nan)
    scorer(EPOCH)
    stats = scorer.stats()
    assert stats["total_samples"] == 1
    assert stats["avg_laziness"] == pytest.approx(100 * (0.6 * 5 / 21 + 0.4))
    assert stats["topic_distribution"] == {"互联网": 1}
    assert stats["epoch_laziness"] == [stats["avg_laziness"]]


def test_the_verdict_sums_up_the_run_and_a_new_run_starts_afresh() -> None:
    scorer = LessonScorer(DisplayConfig(), default_topics())
    for tenth in range(10, 0, -1):
        score(scorer, student_text=SEEN.teacher_text, normalised_kl=tenth / 10)
    verdict = scorer(END)
    assert isinstance(verdict, RunFinished)
    assert (verdict.samples, verdict.trend, verdict.grade) == (10, "unknown", None)  # cards alone are no evidence
    assert verdict.first_laziness == pytest.approx(0.4 * 0.95)
    assert verdict.last_laziness == pytest.approx(0.4 * 0.15)
    assert [item.key for item in verdict.advice] == ["not_measured"]
    begun = scorer(next(event for event in EVENTS if isinstance(event, RunStarted)))
    assert isinstance(begun, RunStarted)
    assert begun.laziness_scale == LazinessScale()  # the record says what the cards are judged by
    assert scorer.stats()["total_samples"] == 0


def test_a_hundred_thousand_cards_take_no_more_memory_than_a_thousand() -> None:
    scorer = LessonScorer(DisplayConfig(), {}, similarity=lambda teacher, student: 0.5)
    for _ in range(1000):
        score(scorer)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for step in range(100_000):
        scorer(replace(STEP, step=step))
        if step % 10 == 0:
            score(scorer, loss=float(step))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 1_000_000


def test_topics_without_end_are_capped() -> None:
    scorer = LessonScorer(DisplayConfig(), {f"题{i}": [f"词{i}号"] for i in range(200)})
    for i in range(200):
        score(scorer, input_text=f"词{i}号")
    assert len(scorer.stats()["topic_distribution"]) == 64
    assert scorer.stats()["total_samples"] == 200


def test_events_that_need_no_judgement_come_back_as_they_are() -> None:
    assert LessonScorer(DisplayConfig(), {})(STEP) is STEP
    assert isinstance(STEP, StepDone)


@pytest.mark.parametrize("learns", [True, False])
def test_a_remark_is_recorded_by_key_and_variant_and_said_in_the_readers_language(learns: bool) -> None:
    scorer = LessonScorer(DisplayConfig(lang="zh"), default_topics())
    scorer(replace(EVENTS[0], learns_from_teacher=learns))  # type: ignore[call-arg]
    zh, en = (Phrases.load(lang).of_run(learns_from_teacher=learns) for lang in ("zh", "en"))
    said = set()
    for step in range(2, 12):
        card = score(scorer, step=step)
        assert sentences.remark(card, zh) == card.remark
        place = zh.variants(f"remarks.{card.remark_key}").index(card.remark)
        said.add(sentences.remark(card, en))
        assert sentences.remark(card, en) == en.variants(f"remarks.{card.remark_key}")[place]
    assert len(said) == len(en.variants("remarks.fair"))


def test_a_remark_of_ones_own_and_one_of_an_old_record_are_said_as_they_were_made() -> None:
    own = LessonScorer(DisplayConfig(), default_topics(), comment=lambda lazy, loss: "慢慢来")
    card = score(own)
    assert (card.remark_key, sentences.remark(card, Phrases.load("en"))) == (None, "慢慢来")
    for damaged in (
        {"remark_key": "no such"},
        {"remark_key": "__class__"},
        {"remark_key": "fair", "remark_variant": -7},
    ):
        assert sentences.remark(replace(card, **damaged), Phrases.load("en"))
