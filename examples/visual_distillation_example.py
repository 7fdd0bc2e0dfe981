"""可视化知识蒸馏的四个示例，用内置的教师和课本，不需要网络，一共一分钟左右。

    cd examples
    python visual_distillation_example.py          # 菜单：挑一个看
    python visual_distillation_example.py --all    # 四个依次运行；没有终端时也是这样

The four examples of the guide (docs/visual-distillation-guide.en.md), on the demo's teacher and corpus: offline, a
minute or so in all. A menu on a terminal; all four with --all, or where there is no terminal.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from apt_model import (
    VisualDistillationPlugin,
    create_compressed_model,
    demo,
    evaluate_text_quality,
    get_model_size,
    load_dataset,
    load_model,
    quick_visual_distill,
    save_model,
)

EPOCHS = 8
SENTENCES = 12  # 每个主题


def textbook(first: int = 0, count: int | None = None) -> list[str]:
    """每个主题从第 first 句起的若干句。"""
    count = SENTENCES if count is None else count
    return [sentence for sentences in demo.read_corpus().values() for sentence in sentences[first : first + count]]


def basic() -> None:
    """示例 1：基础可视化蒸馏。插件、优化器、数据都自己准备，配置全用默认值（温度 4.0）。"""
    teacher_model, tokenizer = demo.load_teacher()
    student_model = create_compressed_model(teacher_model, num_layers=2, hidden_size=128)
    plugin = VisualDistillationPlugin({"temperature": 4.0, "alpha": 0.7, "beta": 0.3})
    plugin.visual_distill_model(
        student_model=student_model,
        teacher_model=teacher_model,
        train_dataloader=DataLoader(textbook(), batch_size=16, shuffle=True),
        optimizer=torch.optim.AdamW(student_model.parameters(), lr=3e-3),
        tokenizer=tokenizer,
        num_epochs=EPOCHS,
        device="cpu",
    )


def quick_start() -> None:
    """示例 2：快速启动。一个函数就够；从头开始的学生，温度 1 学得更快。"""
    teacher_model, tokenizer = demo.load_teacher()
    quick_visual_distill(
        student_model=create_compressed_model(teacher_model, num_layers=2, hidden_size=128),
        teacher_model=teacher_model,
        train_dataloader=DataLoader(textbook(), batch_size=16, shuffle=True),
        tokenizer=tokenizer,
        config={"temperature": 1.0, "learning_rate": 3e-3},
        num_epochs=EPOCHS,
        device="cpu",
    )


class PatientTeacher(VisualDistillationPlugin):
    """评语由自己来写的插件。"""

    def generate_comment(self, laziness_percent: float, loss: float) -> str:
        if laziness_percent < 50:
            return f"🌱 已经学会一半以上了（偷懒 {laziness_percent:.0f}%）"
        return f"🌱 慢慢来，损失 {loss:.2f}，还会再降"


def custom_config() -> None:
    """示例 3：自定义配置。教学预设、差异对照、自己的主题和评语，训练后读统计信息。"""
    teacher_model, tokenizer = demo.load_teacher()
    plugin = PatientTeacher({"preset": "teaching", "temperature": 2.0, "alpha": 0.9, "learning_rate": 3e-3})
    plugin.topic_keywords["量子计算"] = ["量子", "量子比特", "叠加态", "纠缠"]
    plugin.topic_keywords["区块链"] = ["区块链", "比特币", "以太坊", "智能合约"]
    plugin.visual_distill_model(
        # 从教师的两层开始的学生：宽度相同，学得快
        student_model=create_compressed_model(teacher_model, num_layers=2, init="teacher"),
        teacher_model=teacher_model,
        train_dataloader=DataLoader(textbook(), batch_size=16, shuffle=True),
        tokenizer=tokenizer,
        num_epochs=EPOCHS // 2,
        device="cpu",
    )
    print(f"总样本数: {plugin.stats['total_samples']}")
    print(f"平均偷懒程度: {plugin.stats['avg_laziness']:.2f}%")
    print(f"主题分布: {plugin.stats['topic_distribution']}")


def whole_flow() -> None:
    """示例 4：集成到训练流程。加载教师、创建学生、准备数据、蒸馏、保存、评估。"""
    home = Path(tempfile.mkdtemp(prefix="apt_model_example_"))
    print(f"📁 文件都写在 {home}")
    save_model(*demo.load_teacher(), home / "apt_model_large")
    (home / "train.txt").write_text("\n".join(textbook()), encoding="utf-8")
    (home / "test.txt").write_text("\n".join(textbook(first=SENTENCES, count=4)), encoding="utf-8")

    print("📥 加载教师模型...")
    teacher_model, tokenizer, config = load_model(home / "apt_model_large")
    print("🔧 创建学生模型...")
    student_model = create_compressed_model(config, num_layers=2, hidden_size=128)  # 教师有 4 层，宽 256
    print("📊 准备训练数据...")
    train_dataloader = DataLoader(load_dataset(home / "train.txt"), batch_size=16, shuffle=True)
    test_dataloader = DataLoader(load_dataset(home / "test.txt"), batch_size=8)
    print("🎓 开始知识蒸馏...")
    quick_visual_distill(
        student_model=student_model,
        teacher_model=teacher_model,
        train_dataloader=train_dataloader,
        tokenizer=tokenizer,
        config={"temperature": 1.0, "alpha": 0.7, "beta": 0.3, "learning_rate": 3e-3},
        num_epochs=EPOCHS,
        device="cpu",
        run_dir=home / "run",
    )
    print("💾 保存模型...")
    save_model(student_model, tokenizer, home / "apt_model_distilled")
    print("📊 评估模型（没学过的句子，教师在旁边）...")
    results = evaluate_text_quality(student_model, test_dataloader, tokenizer, teacher=teacher_model)
    print("\n✅ 蒸馏完成！")
    print(f"   模型大小: {get_model_size(teacher_model):.1f}MB → {get_model_size(student_model):.1f}MB")
    print(f"   评估结果: {results}")
    print(f"   学生模型: {home / 'apt_model_distilled'}")
    print(f"   重看这一课: apt-model replay {home / 'run'}")


EXAMPLES = (
    ("基础可视化蒸馏", basic),
    ("快速启动", quick_start),
    ("自定义配置", custom_config),
    ("集成到训练流程", whole_flow),
)


def run(number: int) -> None:
    """运行一个示例；每次都从同一个种子开始。"""
    name, example = EXAMPLES[number - 1]
    print(f"\n═══ 示例 {number}：{name} ═══\n", flush=True)
    torch.manual_seed(0)
    example()


def menu() -> None:
    """问一个编号，运行，再问；空行或文件结束时离开。"""
    while True:
        print("\n可视化知识蒸馏示例")
        for number, (name, _) in enumerate(EXAMPLES, start=1):
            print(f"  {number}. {name}")
        print("  a. 全部    回车. 退出\n选择: ", end="", flush=True)
        choice = sys.stdin.readline().strip()
        if not choice:
            return
        if choice == "a":
            run_all()
        elif choice in {str(number) for number in range(1, len(EXAMPLES) + 1)}:
            run(int(choice))
        else:
            print(f"没有 {choice!r} 这一项")


def run_all() -> None:
    """四个示例依次运行。"""
    for number in range(1, len(EXAMPLES) + 1):
        run(number)


def main(arguments: list[str]) -> None:
    if arguments not in ([], ["--all"]):
        raise SystemExit(f"用法: python {Path(__file__).name} [--all]")
    if arguments or not sys.stdin.isatty():
        run_all()
    else:
        menu()


if __name__ == "__main__":
    main(sys.argv[1:])
