"""Make the figures of DISTILLATION_PRINCIPLE.md from the demo's teacher and students trained from it.

    pip install -e '.[report]'
    python scripts/make_figures.py            # about five minutes on one core; writes docs/figures/*.png

Everything drawn is measured here, seeded: one token's softened distribution, the probability mass of the top tokens,
the gradient against the temperature, and students trained at different temperatures and weights. Prints the numbers
that the text quotes. Knows nothing of the display.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor, nn

from apt_model.config.sections import TrainConfig
from apt_model.data.batch import Batch, to_batch
from apt_model.data.encode import IGNORED
from apt_model.demo.lesson import BATCH_SIZE, load_teacher, new_student, read_corpus
from apt_model.distill.losses.reference import distillation_sums, token_kl
from apt_model.distill.setup import make_optimizer, make_schedule

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
BEGINNING = "中"  # 国, 央 and 医 may follow: a teacher that hesitates shows what soft targets hold
TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
COLOURS = ("#1b6ca8", "#2a9d8f", "#e09f3e", "#c1443c")
STYLE = {"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False}
SCARCE = 64


def sentences() -> list[str]:
    """The demo's corpus, in a seeded order that mixes its topics."""
    every = [sentence for lines in read_corpus().values() for sentence in lines]
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(0)).tolist()
    return [every[i] for i in order]


@torch.no_grad()
def logits_of(model: nn.Module, batch: Batch) -> Tensor:
    """Logits (N, V) that predict the batch's labels."""
    logits: Tensor = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    return logits[:, :-1][batch.labels[:, 1:] != IGNORED]


def draw_soft_targets(teacher: nn.Module, tokenizer: Any) -> None:
    """One token's distribution at four temperatures: the best ten, and all others together."""
    ids = tokenizer(BEGINNING, return_tensors="pt", add_special_tokens=False)["input_ids"]
    ids = torch.cat([torch.tensor([[tokenizer.bos_token_id]]), ids], dim=1)
    with torch.no_grad():
        logits = teacher(input_ids=ids).logits[0, -1]
    best = logits.argsort(descending=True)[:10]
    print(f"soft targets after {BEGINNING!r}: {[tokenizer.decode([i]) for i in best.tolist()]}")
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    names = [*(str(rank) for rank in range(1, 11)), f"the other\n{len(logits) - 10:,}"]
    for index, (temperature, colour) in enumerate(zip(TEMPERATURES, COLOURS, strict=True)):
        p = (logits / temperature).softmax(-1)
        heights = [*p[best].tolist(), float(1 - p[best].sum())]
        print(f"  T = {temperature:g}: first {heights[0]:.4f}, second {heights[1]:.4f}, the others {heights[-1]:.4f}")
        places = [place + 0.2 * (index - 1.5) for place in range(len(names))]
        axes.bar(places, heights, width=0.2, color=colour, label=f"T = {temperature:g}")
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="the teacher's candidates for the next token, by rank", ylabel="probability")
    axes.legend(frameon=False, ncols=4, loc="upper center")
    save(figure, "soft-targets")


def draw_kept_mass(logits: Tensor) -> None:
    """How much of the teacher's probability its best k tokens hold, against the temperature."""
    temperatures = [1 + 0.25 * i for i in range(29)]
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for k, colour in zip((1, 8, 64, 256), COLOURS, strict=True):
        kept = [float((logits / t).softmax(-1).topk(k).values.sum(-1).mean()) for t in temperatures]
        print(
            f"kept by the best {k}: " + ", ".join(f"T = {t:g}: {kept[temperatures.index(t)]:.3f}" for t in TEMPERATURES)
        )
        axes.plot(temperatures, kept, color=colour, label=f"best {k}" if k > 1 else "best one")
    axes.set(xlabel="temperature T", ylabel="share of the probability", ylim=(0, 1.02))
    axes.legend(frameon=False)
    save(figure, "kept-mass")


def gradient_norms(student: nn.Module, teacher_logits: Tensor, batch: Batch) -> Iterator[tuple[float, float]]:
    """The gradient's norm over the student's weights, for the mean KL at T = 1, 1.5, 2, ... 16."""
    valid = batch.labels[:, 1:] != IGNORED
    for half in range(2, 33):
        temperature = half / 2
        student.zero_grad()
        logits = student(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1][valid]
        token_kl(logits, teacher_logits, temperature=temperature).mean().backward()  # type: ignore[no-untyped-call]
        yield (
            temperature,
            float(torch.stack([p.grad.norm() for p in student.parameters() if p.grad is not None]).norm()),
        )


def draw_gradients(student: nn.Module, teacher_logits: Tensor, batch: Batch) -> None:
    """The gradient of KL, and of T² KL, against the temperature."""
    temperatures, norms = zip(*gradient_norms(student, teacher_logits, batch), strict=True)
    scaled = [t**2 * norm for t, norm in zip(temperatures, norms, strict=True)]
    for t in (1.0, 2.0, 4.0, 8.0, 16.0):
        at = temperatures.index(t)
        print(f"gradient at T = {t:g}: KL {norms[at]:.5f}, T² KL {scaled[at]:.4f}")
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    axes.loglog(temperatures, norms, color=COLOURS[0], label="KL alone")
    axes.loglog(temperatures, scaled, color=COLOURS[3], label="T² · KL")
    falling = [norms[-1] * (temperatures[-1] / t) ** 2 for t in temperatures]
    axes.loglog(temperatures, falling, color="grey", linestyle=":", label="a fall of 1 / T²")
    axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    axes.minorticks_off()
    axes.set(xlabel="temperature T", ylabel="norm of the gradient")
    axes.legend(frameon=False)
    save(figure, "gradient-scale")


def teach(
    teacher: nn.Module,
    tokenizer: Any,
    lines: Sequence[str],
    test: Batch,
    *,
    temperature: float,
    alpha: float,
    steps: int,
) -> list[tuple[int, float, float]]:
    """Train a fresh student by the package's loss; returns (step, KL at T = 1, CE) on `test` every 10 steps."""
    torch.manual_seed(0)
    student = new_student(teacher).train()  # type: ignore[arg-type]
    config = TrainConfig(learning_rate=3e-3, warmup_ratio=0.1)
    optimizer = make_optimizer(student, config)
    schedule = make_schedule(optimizer, config, steps)
    batches = [to_batch(lines[i : i + BATCH_SIZE], tokenizer=tokenizer) for i in range(0, len(lines), BATCH_SIZE)]
    with torch.no_grad():
        signals = [teacher(input_ids=b.input_ids, attention_mask=b.attention_mask).logits for b in batches]
    taught, labels = logits_of(teacher, test), test.labels[:, 1:][test.labels[:, 1:] != IGNORED]
    course = []
    for step in range(steps + 1):
        if step % 10 == 0:
            known = logits_of(student, test)
            kl = float(token_kl(known, taught, temperature=1.0).mean())
            course.append((step, kl, float(nn.functional.cross_entropy(known, labels))))
        batch, signal = batches[step % len(batches)], signals[step % len(batches)]
        logits = student(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        kd, ce = distillation_sums(logits, signal, batch.labels, temperature=temperature)
        ((alpha * kd + (1 - alpha) * ce) / batch.label_count).backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        if step < steps:
            schedule.step()
        optimizer.zero_grad()
    return course


def draw_temperatures(teacher: nn.Module, tokenizer: Any, lines: list[str]) -> None:
    """KL at temperature 1 of students trained at three temperatures, on sentences of their training data."""
    test = to_batch(lines[:128], tokenizer=tokenizer)
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for temperature, colour in zip(TEMPERATURES[:3], COLOURS, strict=False):
        course = teach(teacher, tokenizer, lines, test, temperature=temperature, alpha=0.7, steps=390)
        print(f"taught at T = {temperature:g}: KL {course[0][1]:.2f} to {course[-1][1]:.3f}")
        axes.plot([c[0] for c in course], [c[1] for c in course], color=colour, label=f"taught at T = {temperature:g}")
    axes.set(xlabel="step", ylabel="KL to the teacher at T = 1, nats a token", ylim=(0, None))
    axes.legend(frameon=False)
    save(figure, "temperature-course")


def draw_scarce_text(teacher: nn.Module, tokenizer: Any, lines: list[str]) -> None:
    """Cross-entropy on held-out sentences of students trained on `SCARCE` sentences over and over."""
    test = to_batch(lines[SCARCE : SCARCE + 256], tokenizer=tokenizer)
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    cases = (("labels alone (alpha 0)", 1.0, 0.0), ("T = 1, alpha 1", 1.0, 1.0), ("T = 4, alpha 1", 4.0, 1.0))
    for (name, temperature, alpha), colour in zip(cases, (COLOURS[3], COLOURS[0], COLOURS[2]), strict=True):
        course = teach(teacher, tokenizer, lines[:SCARCE], test, temperature=temperature, alpha=alpha, steps=300)
        best = min(course, key=lambda point: point[2])
        print(f"scarce text, {name}: CE best {best[2]:.3f} at step {best[0]}, last {course[-1][2]:.3f}")
        axes.plot([c[0] for c in course], [c[2] for c in course], color=colour, label=name)
    axes.set(xlabel="step", ylabel="cross-entropy on unread text, nats a token")
    axes.legend(frameon=False)
    save(figure, "scarce-text")


def save(figure: Any, name: str) -> None:
    """Write a figure, and say so."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / f"{name}.png", dpi=120, metadata={"Software": None})
    plt.close(figure)
    print(f"{FIGURES / name}.png, {(FIGURES / f'{name}.png').stat().st_size / 1000:.0f} kB", flush=True)


def main() -> None:
    """Measure and draw."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    teacher, tokenizer = load_teacher()
    lines = sentences()
    batch = to_batch(lines[:BATCH_SIZE], tokenizer=tokenizer)
    taught = logits_of(teacher, batch)
    with plt.rc_context(STYLE):
        draw_soft_targets(teacher, tokenizer)
        draw_kept_mass(taught)
        draw_gradients(new_student(teacher), taught, batch)
        draw_temperatures(teacher, tokenizer, lines)
        draw_scarce_text(teacher, tokenizer, lines)


if __name__ == "__main__":
    main()
