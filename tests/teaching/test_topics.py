"""Topic keywords and how they are counted. The sentences are our own: the text they were measured on is not here."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_model.teaching.topics import default_topics, detect_topic
from scripts.measure_topics import confusion, main, part_of, read_rows, report

TOPICS = default_topics()
FILES = ("topics", "topics_en")


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
    assert detect_topic(text, TOPICS) == topic


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
    assert detect_topic(text, TOPICS) == "通用"


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
    assert detect_topic(text, TOPICS) == topic


def test_the_keywords_of_one_character_are_few_and_precise() -> None:
    alone = {keyword for keywords in TOPICS.values() for keyword in keywords if len(keyword) == 1}
    assert alone == {"硅", "癌", "肾", "酶", "课", "诗"}


def test_every_keyword_is_lower_case_and_free_of_blanks_around_it() -> None:
    keywords = [keyword for keywords in TOPICS.values() for keyword in keywords]
    assert len(keywords) > 2000
    assert [keyword for keyword in keywords if keyword != keyword.strip().lower() or not keyword] == []


def test_a_keyword_of_one_character_counts_where_no_longer_one_with_that_beginning_does() -> None:
    topics = {"乙": ["诗经", "诗词大会"], "甲": ["诗"]}
    assert detect_topic("诗经", topics) == "乙"
    assert detect_topic("读诗", topics) == "甲"
    assert detect_topic("诗词 诗经 诗", topics) == "甲"


def test_the_case_of_a_keyword_does_not_matter() -> None:
    assert detect_topic("一块gpu", {"甲": ["GPU"]}) == detect_topic("一块Gpu", {"甲": ["gpu"]}) == "甲"


def test_a_keyword_counts_wherever_it_stands_in_a_long_text() -> None:
    topics = {"甲": ["苹果"], "乙": ["梨子"]}
    assert detect_topic("苹果" + "一" * 100_000 + "梨子，梨子", topics) == "乙"


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("量子比特处于叠加态", "量子计算"),
        ("量子计算机的芯片需要极低的温度，量子比特才能稳定", "量子计算"),  # its name is in 量子计算机
        ("两个粒子可以相互纠缠", "量子计算"),  # one hit each
        ("量子的世界里没有轨道", "量子计算"),  # 量子 is not 科技's any more
        ("物理学家用纠缠的量子做实验", "量子计算"),  # two each
        ("区块链让账本无法篡改", "区块链"),  # 区块链 is not 科技's any more
        ("以太坊上的智能合约会自动执行", "区块链"),
        ("银行不承认比特币", "区块链"),  # one each
        ("火箭把探测器送上火星，没有用到量子", "科技"),  # three against one: the most hits win all the same
    ],
)
def test_the_topics_that_the_guide_adds_find_their_sentences(text: str, topic: str) -> None:
    topics = default_topics()
    topics["量子计算"] = ["量子", "量子比特", "叠加态", "纠缠"]
    topics["区块链"] = ["区块链", "比特币", "以太坊", "智能合约"]
    assert detect_topic(text, topics) == topic


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("Two entangled qubits and a superposition of states", "quantum computing"),
        ("The physicist measured a qubit", "quantum computing"),  # one each
        ("Bitcoin fell, and so did two banks", "blockchain"),  # bitcoin is not 经济's any more, 1 bank is a tie
        ("Smart contracts run on Ethereum", "blockchain"),
        ("Central banks raised interest rates while bitcoin fell", "经济"),
    ],
)
def test_the_topics_that_the_english_guide_adds_find_their_sentences(text: str, topic: str) -> None:
    topics = default_topics()
    topics["quantum computing"] = ["qubit", "superposition", "entanglement"]
    topics["blockchain"] = ["blockchain", "bitcoin", "ethereum", "smart contract"]
    assert detect_topic(text, topics) == topic


def test_a_built_in_topic_that_a_user_changed_wins_a_tie_too() -> None:
    topics = default_topics()
    assert detect_topic("互联网、京剧", topics) == "互联网"
    topics["文化"].append("评弹")
    assert detect_topic("互联网、京剧", topics) == "文化"
    topics["互联网"] = ["互联网"]
    assert detect_topic("互联网、京剧", topics) == "互联网"  # both are the user's: the first listed


def test_the_built_in_lists_are_the_same_after_somebody_changed_a_copy() -> None:
    default_topics()["体育"].append("评弹")
    assert detect_topic("评弹", default_topics()) == "通用"


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("The website was down, so nobody could upload a video.", "互联网"),
        ("A neural network was trained to recognise faces.", "人工智能"),
        ("Two satellites were carried into orbit by one rocket.", "科技"),
        ("Doctors at three hospitals stopped using the antibiotics.", "医疗"),
        ("Pupils asked their teacher to explain the homework again.", "教育"),
        ("Inflation rose, and banks raised their interest rates.", "经济"),
        ("The composer wrote two symphonies and an opera.", "文化"),
        ("The goalkeeper saved a penalty in the second half of the match.", "体育"),
        ("She put the letter back into the drawer.", "通用"),
    ],
)
def test_english_text_has_the_same_eight_topics(text: str, topic: str) -> None:
    assert detect_topic(text, TOPICS) == topic


def test_of_160_english_sentences_four_in_five_have_their_topic_and_no_general_one_has_any() -> None:
    rows = read_rows([Path(__file__).with_name("english_sentences.tsv")], "all", TOPICS)
    found = confusion(rows, TOPICS)
    assert len(rows) == 160
    assert sum(count for (label, topic), count in found.items() if label == topic) >= 128
    assert found["通用", "通用"] == 40


def test_both_files_of_keywords_have_the_same_topics_and_no_english_one_is_a_plural_of_another() -> None:
    folder = files("apt_model.teaching")
    chinese, english = (tomllib.loads(folder.joinpath(f"{name}.toml").read_text("utf-8")) for name in FILES)
    assert list(chinese) == list(english) == list(TOPICS)
    assert min(map(len, english.values())) >= 100
    words = {word for some in english.values() for word in some}
    assert all(word.isascii() for word in words)
    assert {word + "s" for word in words} & words == set()


@pytest.mark.parametrize("text", ["apples", "APPLE", "an apple-pie", "Boxes", "cherries", "green\nteas", "green-tea"])
def test_an_english_keyword_counts_in_the_plural_in_any_case_and_across_a_line(text: str) -> None:
    assert detect_topic(text, {"甲": ["apple", "box", "cherry", "green tea"]}) == "甲"


@pytest.mark.parametrize("text", ["pineapple", "applesauce", "boxer", "cherry1", "greentea", "steas"])
def test_an_english_keyword_is_not_a_part_of_a_word(text: str) -> None:
    assert detect_topic(text, {"甲": ["apple", "box", "cherry", "green tea", "tea"]}) == "通用"


def test_a_plural_that_is_a_keyword_itself_counts_for_its_own_topic() -> None:
    assert detect_topic("news", {"甲": ["new"], "乙": ["news"]}) == "乙"


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
    assert detect_topic(text, topics) == counted_by_a_pattern(text, topics)


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
