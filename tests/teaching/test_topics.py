"""Topic keywords and how they are counted. The sentences are our own: the text they were measured on is not here."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_model.teaching.topics import default_topics, detect_topic
from scripts.measure_topics import confusion, main, part_of, read_rows, report

TOPICS = default_topics()


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("这款单反的镜头换了新涂层，像素也提高了", "科技"),
        ("银河系里有上千亿颗恒星，中心是一个超大质量黑洞", "科技"),
        ("这台笔记本电脑的显卡和内存都可以自己更换", "科技"),
        ("她凭这个角色拿下影后，剧组同时公布了预告片", "文化"),
        ("小提琴协奏曲由三个乐章组成，作曲家当年只有二十岁", "文化"),
        ("石窟里的壁画和佛像需要控制湿度才能保存", "文化"),
        ("包过滤的漏洞常被蠕虫利用，口令也会因此泄露", "互联网"),
        ("随机森林比单棵决策树更不容易过拟合，交叉验证可以说明这一点", "人工智能"),
        ("动脉硬化会引起脑出血，患有高血压的人要留意", "医疗"),
        ("填报志愿之前，先看往年的分数线和招生简章", "教育"),
        ("大盘震荡走低，券商板块领涨，沪指收盘微跌", "经济"),
        ("边际效用递减，所以需求曲线向右下方倾斜", "经济"),
        ("客队梅开二度，门将连续扑救，德比以平局收场", "体育"),
    ],
)
def test_what_the_first_lists_missed_is_found(text: str, topic: str) -> None:
    assert detect_topic([text], TOPICS) == topic


@pytest.mark.parametrize(
    "text",
    [
        "网友纷纷说好，也有人不信",
        "双方签了协议，约定下周交房",
        "他花了很多钱，还是没有修好",
        "孩子们在院子里捉迷藏",
        "三天后他们又见面了",
        "到场的人很多，其中超过一半是老人",
        "他在会上提出道歉，大家都接受了",
        "那一部分子女住在外地，过年才回来",
    ],
)
def test_a_text_about_none_of_the_topics_stays_general(text: str) -> None:
    assert detect_topic([text], TOPICS) == "通用"


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("四月经济数据今天公布", "经济"),  # not 月经
        ("网上报名从周一开始", "教育"),  # not 网上
        ("网络钓鱼骗走了他的密码", "互联网"),  # not 钓鱼
        ("抑癌基因失去作用", "医疗"),  # not 基因
    ],
)
def test_a_word_that_only_arises_between_two_others_does_not_count(text: str, topic: str) -> None:
    assert detect_topic([text], TOPICS) == topic


def test_the_keywords_of_one_character_are_few_and_precise() -> None:
    alone = {keyword for keywords in TOPICS.values() for keyword in keywords if len(keyword) == 1}
    assert alone == {"硅", "癌", "肾", "酶", "课", "诗"}


def test_every_keyword_is_lower_case_and_free_of_blanks_around_it() -> None:
    keywords = [keyword for keywords in TOPICS.values() for keyword in keywords]
    assert len(keywords) > 2000
    assert [keyword for keyword in keywords if keyword != keyword.strip().lower() or not keyword] == []


def test_a_keyword_of_one_character_counts_where_no_longer_one_with_that_beginning_does() -> None:
    topics = {"乙": ["诗经", "诗词大会"], "甲": ["诗"]}
    assert detect_topic(["诗经"], topics) == "乙"
    assert detect_topic(["读诗"], topics) == "甲"
    assert detect_topic(["诗词 诗经 诗"], topics) == "甲"


def test_the_case_of_a_keyword_does_not_matter() -> None:
    assert detect_topic(["一块gpu"], {"甲": ["GPU"]}) == detect_topic(["一块Gpu"], {"甲": ["gpu"]}) == "甲"


def test_only_the_first_two_thousand_characters_of_each_text_are_looked_at() -> None:
    topics = {"甲": ["苹果"], "乙": ["梨子"]}
    assert detect_topic(["一" * 1998 + "苹果"], topics) == "甲"
    assert detect_topic(["一" * 1999 + "苹果", "梨子"], topics) == "乙"


def counted_by_a_pattern(text: str, topics: dict[str, list[str]]) -> str:
    """The same rule as one regular expression, longest alternative first."""
    keywords = sorted({keyword.lower() for words in topics.values() for keyword in words}, key=len, reverse=True)
    alternatives = [
        rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])" if word.isascii() else re.escape(word) for word in keywords
    ]
    found = re.findall("|".join(alternatives), text.lower())
    counts = {topic: sum(word in map(str.lower, words) for word in found) for topic, words in topics.items()}
    best = max(counts, key=lambda topic: counts[topic])
    return best if counts[best] else "通用"


@given(st.text("ab1 甲乙丙A", max_size=30))
def test_keywords_are_counted_as_one_pattern_of_all_would_count_them(text: str) -> None:
    topics = {
        "x": ["a", "ab", "甲", "a1", "甲乙"],
        "y": ["b", "乙", "ba", "1", "乙a", "甲"],
        "z": ["甲a", "ab", "丙丙甲"],
    }
    assert detect_topic([text], topics) == counted_by_a_pattern(text, topics)


def test_the_measurement_counts_what_a_person_would_count(tmp_path: Path) -> None:
    topics = {"甲": ["苹果"], "乙": ["梨"]}
    data = tmp_path / "data.tsv"
    rows = [
        "甲\t苹果",
        "甲\t苹果一个",
        "甲\t梨",
        "乙|甲\t苹果树",
        "乙|甲\t无",
        "通用\t梨子",
        "通用\t云",
        "丙\t苹果",
        "甲\t苹果",
    ]
    data.write_text("\n".join(rows), "utf-8")
    found = confusion(read_rows([data], "all", topics), topics)
    assert found == {
        ("甲", "甲"): 3,
        ("甲", "乙"): 1,
        ("乙", "通用"): 1,
        ("通用", "乙"): 1,
        ("通用", "通用"): 1,
    }
    shown = report(found, ["甲", "乙", "通用"])
    assert "accuracy 0.571 of 7 texts" in shown  # (3 + 1) / 7
    assert "mean precision 0.500 and mean recall 0.375" in shown  # (1 + 0) / 2 and (3/4 + 0) / 2
    assert "it was right in 0.600" in shown  # 3 of the 5 that were found to be 甲 or 乙
    assert "| 甲 | 4 | 3 | 1.000 | 0.750 |" in shown
    assert "| 甲 | 3 | 1 | 0 |" in shown


def test_labels_of_news_sets_are_translated_and_the_halves_never_meet(tmp_path: Path) -> None:
    data = tmp_path / "data.tsv"
    data.write_text("".join(f"news_tech\t第{i}条\ngame\t第{i}局\nsociety\t第{i}件\n" for i in range(50)), "utf-8")
    parts = {part: read_rows([data], part, TOPICS) for part in ("dev", "test", "all")}
    assert [accepted for accepted, _ in parts["all"][:2]] == [["科技", "互联网", "人工智能"], ["通用"]]
    assert len(parts["dev"]) + len(parts["test"]) == len(parts["all"]) == 100
    assert 30 < len(parts["dev"]) < 70
    assert part_of("abc") == "dev"  # SHA-256 of "abc" begins with ba, FIPS 180-2 appendix B.1
    assert {text for _, text in parts["dev"]}.isdisjoint(text for _, text in parts["test"])


def test_the_script_prints_its_table_for_a_file_and_for_other_keywords(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.tsv").write_text("甲\t苹果\n", "utf-8")
    (tmp_path / "own.toml").write_text('"甲" = ["苹果"]\n', "utf-8")
    monkeypatch.setattr("sys.argv", ["measure", str(tmp_path / "data.tsv"), "--keywords", str(tmp_path / "own.toml")])
    main()
    shown = capsys.readouterr().out
    assert "| 甲 | 1 | 1 | 1.000 | 1.000 |" in shown
    assert "| 通用 | 0 | 0 | – | – |" in shown
    assert re.search(r"2 characters take \d+ µs", shown)
