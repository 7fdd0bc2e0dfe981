"""How answers read, against sacrebleu called by hand and n-grams counted by hand."""

import sys

import pytest
import sacrebleu

from apt_model.errors import ConfigError
from apt_model.generation.answer_scores import is_chinese, judge, need_sacrebleu, units

ENGLISH = [
    ("The cat sat on the mat, and the dog ran away.", "The cat sat on a mat and the dog ran away."),
    ("A red ball!", "It was a big red ball."),
    ("", "Nothing was said."),
    ("the the the the the the the the", "the sun rose"),
]
CHINESE = [
    ("互联网是全球最大的计算机网络。", "互联网是世界上最大的计算机网络。"),
    ("好的好的好的好的", "好的，我用 Python 来写。"),
    ("人工智能", "人工智能正在改变医疗。"),
]


@pytest.mark.parametrize(("pairs", "words"), [(ENGLISH, "13a"), (CHINESE, "zh")])
def test_chrf_and_bleu_are_sacrebleus_own(pairs: list[tuple[str, str]], words: str) -> None:
    answers, references = map(list, zip(*pairs, strict=True))
    judged = judge(answers, references, resamples=200, seed=0)
    assert judged.values["chrf"] == sacrebleu.corpus_chrf(answers, [references]).score
    assert judged.values["bleu"] == sacrebleu.corpus_bleu(answers, [references], tokenize=words).score
    assert f"tok:{words}" in judged.signatures["bleu"]
    assert judged.signatures["chrf"].endswith(f"version:{sacrebleu.__version__}")


def test_the_intervals_are_quantiles_of_sacrebleus_scores_of_resampled_answers() -> None:
    import numpy as np

    answers, references = map(list, zip(*ENGLISH, strict=True))
    judged = judge(answers, references, resamples=100, seed=5)
    drawn = np.random.default_rng(5).integers(4, size=(100, 4))
    scores: dict[str, list[float]] = {"chrf": [], "bleu": []}
    for rows in drawn:
        said, meant = [answers[row] for row in rows], [[references[row] for row in rows]]
        scores["chrf"].append(sacrebleu.corpus_chrf(said, meant).score)
        scores["bleu"].append(sacrebleu.corpus_bleu(said, meant).score)
    for name, values in scores.items():
        assert judged.intervals[name] == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))), rel=1e-9)


def test_equal_texts_score_a_hundred_and_leave_no_doubt() -> None:
    texts = ["The cat sat on the mat.", "A big red ball rolled away."]
    judged = judge(texts, texts, resamples=100, seed=0)
    assert (judged.values["chrf"], judged.values["bleu"]) == (pytest.approx(100), pytest.approx(100))
    assert judged.intervals["bleu"] == pytest.approx((100, 100))


def test_distinct_n_and_repetition_are_counted_over_words_or_over_characters() -> None:
    judged = judge(["a b a b a b", "a b"], ["x y", "z"], resamples=100, seed=0)
    assert judged.values["distinct_1"] == 2 / 8
    assert judged.values["distinct_2"] == 2 / 6  # ab and ba among 5 + 1
    assert judged.values["repetition"] == 1 / 3  # abab, baba, abab
    judged = judge(["好的好的 好的", "好"], ["好好好", "的"], resamples=100, seed=0)
    assert judged.values["distinct_1"] == 2 / 7
    assert judged.values["distinct_2"] == 2 / 5
    assert judged.values["repetition"] == 1 / 3


def test_answers_too_short_to_repeat_anything_repeat_nothing() -> None:
    judged = judge(["", "a b"], ["x", "y"], resamples=100, seed=0)
    assert (judged.values["repetition"], judged.values["bleu"]) == (0.0, 0.0)
    assert "repetition" not in judged.intervals
    assert judge([""], ["x"], resamples=100, seed=0).values["distinct_1"] == 0.0


def test_a_single_answer_has_no_interval() -> None:
    assert judge(["a b c d e f"], ["a b c d e"], resamples=100, seed=0).intervals == {}


@pytest.mark.parametrize(
    ("texts", "chinese"),
    [
        (["使用 Python 的 DataLoader 加载数据"], True),
        (["The word 好 means good in English"], False),
        (["1234 !"], False),
        (["the cat", "互联网是全球最大的"], True),
        ([], False),
    ],
)
def test_what_is_chinese_is_told_by_characters_against_words(texts: list[str], chinese: bool) -> None:
    assert is_chinese(texts) is chinese


def test_units_are_characters_or_words_and_marks() -> None:
    assert units("好的 ok。", chinese=True) == ["好", "的", "o", "k", "。"]
    assert units("Don't stop, now", chinese=False) == ["Don", "'", "t", "stop", ",", "now"]


def test_without_sacrebleu_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ConfigError, match=r"need sacrebleu\. Fix: pip install 'apt-model\[evaluate\]'"):
        need_sacrebleu()
