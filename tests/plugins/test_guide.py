"""The guide's code, word for word, with small real models behind its placeholder functions."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import apt_model.models.pretrained
from apt_model.data.dataset import load_dataset
from apt_model.distill.students.fresh import create_compressed_model
from apt_model.errors import ConfigError
from apt_model.models.pretrained import save_model
from apt_model.models.weights import get_model_size
from apt_model.plugins.distillation_plugin import DistillationPlugin
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin, quick_visual_distill

QUICK_START = """
from apt_model.plugins.visual_distillation_plugin import quick_visual_distill
from apt_model.training.checkpoint import load_model

# 加载模型
teacher_model, tokenizer, config = load_model("apt_model_large")
student_model = create_student_model()  # 创建小模型

# 准备数据
train_dataloader = get_dataloader()

# 一键启动可视化蒸馏
quick_visual_distill(
    student_model=student_model,
    teacher_model=teacher_model,
    train_dataloader=train_dataloader,
    tokenizer=tokenizer,
    num_epochs=3,
    device='cuda'
)
"""
MANUAL = """
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin

# 自定义配置
config = {
    # 蒸馏参数
    'temperature': 4.0,    # 温度参数
    'alpha': 0.7,          # 蒸馏损失权重
    'beta': 0.3,           # 真实标签权重

    # 可视化参数
    'show_samples': True,          # 是否显示样本
    'show_diff': False,            # 是否显示文本差异
    'sample_frequency': 50,        # 每N个batch显示一次
    'max_text_length': 100,        # 显示的最大文本长度
}

# 创建插件
plugin = VisualDistillationPlugin(config)

# 优化器
optimizer = torch.optim.AdamW(student_model.parameters(), lr=1e-4)

# 训练
plugin.visual_distill_model(
    student_model=student_model,
    teacher_model=teacher_model,
    train_dataloader=train_dataloader,
    optimizer=optimizer,
    tokenizer=tokenizer,
    num_epochs=3,
    device='cuda'
)
"""
FAST = """
config = {
    'temperature': 4.0,
    'alpha': 0.7,
    'beta': 0.3,
    'sample_frequency': 100,  # 每100个batch显示
    'max_text_length': 50,    # 短文本
}
"""
DETAILED = """
config = {
    'temperature': 4.0,
    'alpha': 0.7,
    'beta': 0.3,
    'sample_frequency': 10,   # 每10个batch显示
    'max_text_length': 200,   # 长文本
    'show_diff': True,        # 显示差异
}
"""
HIGH_QUALITY = """
config = {
    'temperature': 6.0,   # 更平滑
    'alpha': 0.9,         # 更重视蒸馏
    'beta': 0.1,
    'sample_frequency': 50,
}
"""
TEACHING = """
config = {
    'sample_frequency': 5,    # 每5个batch
    'max_text_length': 150,   # 长文本
    'show_diff': True,        # 显示差异
}
"""
PRODUCTION = """
config = {
    'sample_frequency': 200,  # 每200个batch
    'max_text_length': 50,    # 短文本
    'show_diff': False,       # 不显示差异
}
"""
DEBUG = """
config = {
    'sample_frequency': 1,    # 每个batch
    'max_text_length': 200,   # 长文本
    'show_diff': True,        # 显示差异
}
"""
TOPICS = """
plugin = VisualDistillationPlugin(config)

# 添加自定义主题
plugin.topic_keywords['量子计算'] = ['量子', '量子比特', '叠加态', '纠缠']
plugin.topic_keywords['区块链'] = ['区块链', '比特币', '以太坊', '智能合约']
"""
STATISTICS = """
# 训练后访问统计
print(f"总样本数: {plugin.stats['total_samples']}")
print(f"平均偷懒程度: {plugin.stats['avg_laziness']}")
print(f"主题分布: {plugin.stats['topic_distribution']}")
"""
DUMMY_TOKENIZER = """
# 使用简化版tokenizer
class DummyTokenizer:
    def decode(self, token_ids, **kwargs):
        return f"文本 (tokens: {len(token_ids)})"

tokenizer = DummyTokenizer()
"""
COMPLETE = """
from apt_model.training.checkpoint import load_model, save_model
from apt_model.plugins.visual_distillation_plugin import quick_visual_distill
from torch.utils.data import DataLoader

# 1. 加载教师模型（大模型）
print("📥 加载教师模型...")
teacher_model, tokenizer, config = load_model("apt_model_large")

# 2. 创建学生模型（小模型）
print("🔧 创建学生模型...")
student_model = create_compressed_model(
    config,
    num_layers=1,        # 教师有2层
    hidden_size=16       # 教师有32
)

# 3. 准备数据
print("📊 准备训练数据...")
train_dataset = load_dataset("train.txt")
train_dataloader = DataLoader(
    train_dataset,
    batch_size=16,
    shuffle=True
)

# 4. 配置可视化蒸馏
distill_config = {
    'temperature': 4.0,
    'alpha': 0.7,
    'beta': 0.3,
    'sample_frequency': 50,
    'max_text_length': 100,
}

# 5. 开始可视化蒸馏
print("🎓 开始知识蒸馏...")
quick_visual_distill(
    student_model=student_model,
    teacher_model=teacher_model,
    train_dataloader=train_dataloader,
    tokenizer=tokenizer,
    config=distill_config,
    num_epochs=5,
    device='cuda'
)

# 6. 保存蒸馏后的学生模型
print("💾 保存模型...")
save_model(student_model, tokenizer, "apt_model_distilled")

# 7. 评估
print("📊 评估模型...")
from apt_model.generation.evaluator import evaluate_text_quality

test_dataloader = DataLoader(load_dataset("test.txt"), batch_size=8)
results = evaluate_text_quality(student_model, test_dataloader, tokenizer)

print(f"\\n✅ 蒸馏完成！")
print(f"   模型大小: {get_model_size(teacher_model):.1f}MB → {get_model_size(student_model):.1f}MB")
print(f"   评估结果: {results}")
"""

LESSON_WORDS = (
    "🎓 可视化知识蒸馏训练|温度=4.0, α=0.7, β=0.3|每 50 个batch显示一次样本|📖 Epoch 1/3|📍 Batch 0|👨🏫 教师模型: |"
    "👨🎓 学生模型: |偷懒程度: [|📉 训练损失: |💬 评语: |📊 Epoch 3 总结|📉 平均损失: |😴 平均偷懒程度: |📚 主题分布:|"
    "🎉 知识蒸馏训练完成！|📊 总样本数: 3|😴 总体平均偷懒程度: |学习趋势: |💡 建议:"
)


@pytest.fixture
def classroom(
    make_model: Callable[..., Any],
    teacher: Any,
    student: Any,
    tokenizer: Any,
    make_batches: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """The names that the guide leaves to its reader."""
    monkeypatch.chdir(tmp_path)
    save_model(teacher, tokenizer, "apt_model_large")
    return {
        "torch": torch,
        "VisualDistillationPlugin": VisualDistillationPlugin,
        "create_student_model": lambda: student,
        "get_dataloader": lambda: make_batches(),
        "student_model": student,
        "teacher_model": teacher,
        "train_dataloader": make_batches(),
        "tokenizer": tokenizer,
    }


def test_the_addresses_of_the_guide_lead_to_the_public_names() -> None:
    from apt_model.generation.evaluator import evaluate_text_quality
    from apt_model.plugins import visual_distillation_plugin
    from apt_model.training import checkpoint

    assert evaluate_text_quality is apt_model.evaluate_text_quality
    for name in ("VisualDistillationPlugin", "quick_visual_distill"):
        assert getattr(visual_distillation_plugin, name) is getattr(apt_model, name)
    for name in ("get_model_size", "load_model", "save_model"):
        assert getattr(checkpoint, name) is getattr(apt_model, name)


def test_method_one_runs_as_the_guide_shows_it(classroom: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    exec(QUICK_START, classroom)
    shown = capsys.readouterr().out
    for words in LESSON_WORDS.split("|"):
        assert words in shown
    assert torch.cuda.is_available() or shown.count("没有 cuda，改用 CPU") == 1


def test_method_two_and_the_statistics_run_as_the_guide_shows_them(
    classroom: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    exec(MANUAL + STATISTICS, classroom)
    assert "总样本数: 3\n平均偷懒程度: " in capsys.readouterr().out
    stats = classroom["plugin"].stats
    assert 0 < stats["avg_laziness"] <= 100
    assert sum(stats["topic_distribution"].values()) == stats["total_samples"] == 3
    assert len(stats["epoch_laziness"]) == 3


@pytest.mark.parametrize("block", [FAST, DETAILED, HIGH_QUALITY, TEACHING, PRODUCTION, DEBUG])
def test_every_config_of_the_guide_runs(
    block: str, classroom: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    config: dict[str, Any] = {}
    exec(block, config)
    names = ("student_model", "teacher_model", "train_dataloader", "tokenizer")
    verdict = quick_visual_distill(**{name: classroom[name] for name in names}, config=config["config"], num_epochs=1)
    assert verdict.samples >= 1
    assert ("差异对照" in capsys.readouterr().out) == config["config"].get("show_diff", False)


def test_the_complete_example_runs_as_the_guide_shows_it_from_the_teacher_to_an_evaluated_student(
    classroom: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["人工智能是全球最大的网络。", "医疗，教育，经济，文化。", "互联网是全球最大的计算机网络。"]
    Path("train.txt").write_text("\n".join(lines * 12), encoding="utf-8")
    Path("test.txt").write_text("\n".join([*lines, "互联网，人工智能。"] * 3), encoding="utf-8")
    names: dict[str, Any] = {
        "create_compressed_model": create_compressed_model,
        "load_dataset": load_dataset,
        "get_model_size": get_model_size,
    }
    exec(COMPLETE, names)
    shown = capsys.readouterr().out
    for words in ("📥 加载教师模型...", "📖 Epoch 5/5", "🎉 知识蒸馏训练完成！", "✅ 蒸馏完成！", "评估结果: "):
        assert words in shown
    before, after = (get_model_size(names[f"{role}_model"]) for role in ("teacher", "student"))
    assert f"模型大小: {before:.1f}MB → {after:.1f}MB" in shown
    again, _, config = apt_model.models.pretrained.load_model("apt_model_distilled")
    assert (config.num_hidden_layers, config.hidden_size) == (1, 16)
    for one, two in zip(again.parameters(), names["student_model"].parameters(), strict=True):
        assert torch.equal(one, two)
    tokens = sum(len(line) + 1 for line in [*lines, "互联网，人工智能。"] * 3)  # each character, and the end
    assert names["results"]["tokens"] == tokens
    assert names["results"]["perplexity"] == pytest.approx(math.exp(names["results"]["loss"]))


class Says:
    """A tokenizer that decodes everything to one sentence."""

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence

    def decode(self, token_ids: list[int], **kwargs: Any) -> str:
        return self._sentence


@pytest.mark.parametrize(
    ("sentence", "topic"),
    [
        ("量子比特处于叠加态", "量子计算"),
        ("量子计算机的芯片和硬件需要极低的温度，量子比特才不会失去纠缠", "量子计算"),
        ("区块链是一种科技", "区块链"),
        ("医生在医院里治疗病人", "医疗"),
    ],
)
def test_custom_topics_are_found(classroom: dict[str, Any], sentence: str, topic: str) -> None:
    exec(HIGH_QUALITY + TOPICS, classroom)
    plugin = classroom["plugin"]
    names = ("student_model", "teacher_model", "train_dataloader")
    plugin.visual_distill_model(**{name: classroom[name] for name in names}, tokenizer=Says(sentence), num_epochs=1)
    assert plugin.stats["topic_distribution"] == {topic: 1}


def test_an_english_lesson_finds_and_shows_topics_in_english(
    classroom: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("student_model", "teacher_model", "train_dataloader")
    plugin = VisualDistillationPlugin({"lang": "en"})
    tokenizer = Says("Two doctors at the hospital treated the patients.")
    plugin.visual_distill_model(**{name: classroom[name] for name in names}, tokenizer=tokenizer, num_epochs=1)
    assert "Topic: [medicine]" in capsys.readouterr().out


def test_the_dummy_tokenizer_works(classroom: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    exec(DUMMY_TOKENIZER, classroom)
    exec(MANUAL, classroom)
    assert "教师模型: 文本 (tokens: " in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["none", "raising", "wrong type"])
def test_a_tokenizer_that_is_missing_or_broken_gives_placeholders_and_the_same_student(
    kind: str,
    make_model: Callable[..., Any],
    teacher: Any,
    tokenizer: Any,
    make_batches: Callable[..., Any],
    capsys: Any,
) -> None:
    class Broken:
        def decode(self, token_ids: list[int], **kwargs: Any) -> Any:
            if kind == "raising":
                raise KeyError("no such token")
            return 7

    students = [make_model(hidden=16, layers=1, seed=2) for _ in range(2)]
    for student, words in zip(students, (tokenizer, None if kind == "none" else Broken()), strict=True):
        quick_visual_distill(student, teacher, make_batches(), words, num_epochs=1, device="cpu")
    assert " tokens⟩" in capsys.readouterr().out
    for one, two in zip(*(student.parameters() for student in students), strict=True):
        assert torch.equal(one, two)


def test_remarks_can_be_overridden_in_a_subclass_and_on_the_instance(
    classroom: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    class Kind(VisualDistillationPlugin):
        def generate_comment(self, laziness_percent: float, loss: float) -> str:
            return f"加油！({laziness_percent > 1})"

    names = ("student_model", "teacher_model", "train_dataloader", "tokenizer")
    common = {name: classroom[name] for name in names}
    Kind().visual_distill_model(**common, num_epochs=1)
    assert "💬 评语: 加油！(True)" in capsys.readouterr().out
    plugin = VisualDistillationPlugin()
    plugin.generate_comment = lambda laziness_percent, loss: "[bold]好[/INST]"  # type: ignore[method-assign]
    plugin.visual_distill_model(**common, num_epochs=1)
    assert "💬 评语: [bold]好[/INST]" in capsys.readouterr().out


def test_the_remark_can_be_asked_for_outside_a_lesson() -> None:
    assert VisualDistillationPlugin().generate_comment(52.37, 1.8765) == "📚 主题不够熟练，需要再多学习"


def test_statistics_are_readable_before_training_and_after_none(classroom: dict[str, Any]) -> None:
    plugin = VisualDistillationPlugin({})
    empty = {"total_samples": 0, "avg_laziness": 0.0, "topic_distribution": {}, "epoch_laziness": []}
    assert plugin.stats == empty
    names = ("student_model", "teacher_model", "train_dataloader", "tokenizer")
    plugin.visual_distill_model(**{name: classroom[name] for name in names}, num_epochs=0)
    assert plugin.stats == empty


def test_a_second_lesson_of_a_plugin_starts_afresh(classroom: dict[str, Any]) -> None:
    names = ("student_model", "teacher_model", "train_dataloader", "tokenizer")
    common = {name: classroom[name] for name in names}
    plugin = VisualDistillationPlugin()
    plugin.topic_keywords = {"all": ["", "人", "文", "e", "a"]}
    plugin.generate_comment = lambda laziness_percent, loss: None  # type: ignore[assignment, method-assign, return-value]
    assert plugin.visual_distill_model(**common, num_epochs=1).failures == ()
    plugin.generate_comment = lambda laziness_percent, loss: str(1 / 0)  # type: ignore[method-assign]
    assert len(plugin.visual_distill_model(**common, num_epochs=1).failures) == 1
    plugin.generate_comment = lambda laziness_percent, loss: "好"  # type: ignore[method-assign]
    verdict = plugin.visual_distill_model(**common, num_epochs=1)
    assert (verdict.failures, verdict.samples, plugin.stats["total_samples"]) == ((), 1, 1)


def test_an_unknown_language_is_refused_by_both_plugins() -> None:
    for plugin in (VisualDistillationPlugin, DistillationPlugin):
        with pytest.raises(ConfigError, match="lang is unknown; got 'fr'"):
            plugin({"lang": "fr"})


def test_a_device_that_does_not_exist_anywhere_is_a_mistake_not_a_fallback(classroom: dict[str, Any]) -> None:
    names = ("student_model", "teacher_model", "train_dataloader", "tokenizer")
    with pytest.raises(ConfigError, match="device is unknown; got 'cdua'"):
        quick_visual_distill(**{name: classroom[name] for name in names}, device="cdua")


def test_the_device_and_epochs_of_the_call_are_refused_in_the_config() -> None:
    for plugin in (VisualDistillationPlugin, DistillationPlugin):
        with pytest.raises(ConfigError, match="num_epochs, device cannot be in config"):
            plugin({"num_epochs": 3, "device": "cpu"})


def test_the_standard_plugin_logs_numbers_and_no_texts(
    classroom: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("student_model", "teacher_model", "train_dataloader", "tokenizer")
    DistillationPlugin({"sample_frequency": 2}).distill_model(**{name: classroom[name] for name in names}, num_epochs=1)
    shown = capsys.readouterr().out
    assert shown.count("第 ") == 2
    assert "教师模型" not in shown
    assert "蒸馏完成: 4 步" in shown


def test_a_run_directory_holds_the_record_and_a_student_that_transformers_loads_alone(
    classroom: dict[str, Any], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    names = ("student_model", "teacher_model", "train_dataloader", "tokenizer")
    quick_visual_distill(**{name: classroom[name] for name in names}, num_epochs=1, run_dir="lesson")
    made = sorted(
        str(path.relative_to(tmp_path / "lesson")) for path in (tmp_path / "lesson").rglob("*") if path.is_file()
    )
    saved = ["README.md", "config.json", "generation_config.json", "model.safetensors"]
    saved += ["tokenizer.json", "tokenizer_config.json"]
    kept = [
        "generators.safetensors",
        "inner.safetensors",
        "manifest.json",
        "optimizer.safetensors",
        "state.json",
        "student.safetensors",
    ]
    step = sorted(Path("lesson/checkpoints").iterdir())[-1].name
    kept = [f"checkpoints/{step}/{name}" for name in kept]
    record = [".lock", "config.json", "events.jsonl", "summary.json", "stages/student.json"]
    last = int(step.removeprefix("step-"))
    record += [f"stages/step-{one:08}.safetensors" for one in (0, last // 2, last)]
    assert made == sorted([*record, *kept, *(f"student/{name}" for name in saved)])
    again = AutoModelForCausalLM.from_pretrained("lesson/student")
    for one, two in zip(again.parameters(), classroom["student_model"].parameters(), strict=True):
        assert torch.equal(one, two)
    assert (
        AutoTokenizer.from_pretrained("lesson/student")("人工")["input_ids"]
        == classroom["tokenizer"]("人工")["input_ids"]
    )
    student, tokenizer, config = apt_model.models.pretrained.load_model("lesson")
    assert (config.hidden_size, len(tokenizer)) == (16, len(classroom["tokenizer"]))
    assert not student.training


def test_a_closed_standard_output_ends_the_display_not_the_training(
    classroom: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import sys

    closed = io.StringIO()
    closed.close()
    names = ("student_model", "teacher_model", "train_dataloader", "tokenizer")
    for stdout in (closed, None):
        monkeypatch.setattr(sys, "stdout", stdout)
        plugin = VisualDistillationPlugin()
        verdict = plugin.visual_distill_model(**{name: classroom[name] for name in names}, num_epochs=1)
        assert (verdict.step, plugin.stats["total_samples"]) == (4, 1)
        assert len(verdict.failures) == 1


def test_a_data_loader_of_strings_is_all_it_takes(classroom: dict[str, Any]) -> None:
    loader = DataLoader(["人工智能是医疗。", "互联网，网络。"], batch_size=2)
    names = ("student_model", "teacher_model", "tokenizer")
    verdict = quick_visual_distill(**{name: classroom[name] for name in names}, train_dataloader=loader, num_epochs=2)
    assert verdict.step == 2
