"""Benchmark of cached top-k logits: bytes a token, error of the KL and its gradient, time to encode and decode.

    python -m benchmarks.micro.cache --teacher DIR --data FILE [--rows 32] [--length 256]

Runs a real teacher over real text, packs what it says with the cache's codec, unpacks it, and compares the KL and its
gradient with the full ones, for two students: an early one (the teacher's own first half of layers) and a late one
(the teacher's logits with noise of one nat). Beside it DistillKit's two published settings, by the same measure: its
bytes by its own formula, its values by least squares on the terms that its README names (its code is not on PyPI).
Prints Markdown tables.
"""

import argparse
import copy
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from apt_model.data.dataset import load_dataset, tokenize_dataset
from apt_model.distill.losses.logit_blocks import TopRows
from apt_model.distill.losses.reference import token_kl
from apt_model.distill.losses.topk_logits import sparse_token_kl
from apt_model.distill.teachers.cache.codec import Packing
from apt_model.distill.teachers.cache.topk import keep_top_k
from apt_model.distill.teachers.cached import to_rows
from apt_model.models.pretrained import load_model
from benchmarks.machine import heading
from benchmarks.markdown import head, row

SIZES = (8, 16, 32, 64, 128, 256)
TEMPERATURES = (1.0, 2.0, 4.0)
DISTILLKIT = {
    "recommended": (128, 16, (0, 1, 2, 3, 4, 0.5)),
    "budget": (50, 1, (0, 1, 0.5)),
}  # k, exact, powers of rank
NOISE_NATS = 1.0

Students = dict[str, Tensor]  # logits (L - 1, V) by the student's name
Full = dict[str, tuple[float, Tensor]]  # the KL to all of the teacher's logits, and its gradient, by the student's name


@torch.no_grad()
def answers(teacher: nn.Module, rows: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Logits (L - 1, V) of the teacher and of both students, a row at a time."""
    early = copy.copy(teacher)
    early._modules = dict(teacher._modules)
    early.model = copy.copy(teacher.model)
    early.model._modules = dict(teacher.model._modules)
    early.model.layers = nn.ModuleList(list(teacher.model.layers)[: len(teacher.model.layers) // 2])
    generator = torch.Generator().manual_seed(0)
    for ids in rows:
        batch = torch.tensor([ids])
        logits = teacher(input_ids=batch, use_cache=False).logits[0, :-1].float()
        half = early(input_ids=batch, use_cache=False).logits[0, :-1].float()
        noisy = logits + NOISE_NATS * torch.randn(logits.shape, generator=generator)
        yield logits, {"early": half, "late": noisy}


def with_gradient(student: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[float, Tensor]:
    """A loss summed over positions, and its gradient."""
    leaf = student.clone().requires_grad_()
    value = loss(leaf).sum()
    value.backward()
    assert leaf.grad is not None
    return value.item(), leaf.grad


def errors(students: Students, full: Full, top: TopRows, temperature: float) -> dict[str, float]:
    """Full KL, sparse KL, and the squared distance of their gradients and length of the full one, over positions."""
    found = {}
    for name, student in students.items():
        kl, slope = full[name]
        sparse, sparse_slope = with_gradient(student, lambda x: sparse_token_kl(x, top, temperature=temperature))
        found[f"{name} full"] = temperature**2 * kl
        found[f"{name} sparse"] = temperature**2 * sparse
        found[f"{name} gradient"] = float(sparse_slope.sub_(slope).square().sum())
        found[f"{name} gradient full"] = float(slope.square().sum())
    return found


def distillkit(logits: Tensor, temperature: float, k: int, exact: int, powers: Sequence[float]) -> TopRows:
    """What is left of the top k after its packing: the first in bfloat16, the rest a polynomial of the rank.

    Its captures are at temperature 1; the tail, which it does not keep, is what the rest sums to.
    """
    log_probs = logits.log_softmax(-1)
    values, ids = log_probs.topk(k, dim=-1)
    rank = torch.arange(k - exact, dtype=torch.float64)
    terms = torch.stack([rank**power for power in powers], dim=-1)
    fitted = torch.linalg.lstsq(terms, values[:, exact:].double().T).solution.float().double()
    values = torch.cat([values[:, :exact].bfloat16().double(), (terms @ fitted).T], dim=-1)
    rest = logits.scatter(-1, ids, -torch.inf)
    tail = (1 - values.exp().sum(-1)).clamp(min=1e-6).log()
    if temperature != 1.0:  # the tail at another temperature is not known; grant it the true one
        tail = (rest / temperature).logsumexp(-1).double() - (logits / temperature).logsumexp(-1)
    known = torch.log(-torch.expm1(tail))[:, None] + (values / temperature).log_softmax(-1)
    return TopRows(ids, known.float(), tail.float(), tail.float())


def distillkit_bytes(vocabulary: int, k: int, exact: int, powers: Sequence[float]) -> int:
    """Its `total_bits`, in bytes: ids at full width, exact values in bfloat16, a float32 a term."""
    return math.ceil(k * math.ceil(math.log2(vocabulary)) / 8) + 2 * exact + 4 * len(powers)


def packings(teacher: nn.Module, rows: Sequence[Sequence[int]], temperature: float) -> dict[int, Packing]:
    """The codec for each k and for the whole vocabulary, its order of ids by how often they are among the top."""
    width = int(teacher.config.vocab_size)
    sizes = [k for k in SIZES if k < width]
    sample = [keep_top_k(logits, sizes[-1], temperature).stored for logits, _ in answers(teacher, rows)]
    made = {}
    for k in [*sizes, width]:
        counts = np.bincount(np.concatenate([one.ids[:, :k] for one in sample]).ravel(), minlength=width)
        made[k] = Packing(order=np.argsort(-counts, kind="stable"), k=k, value_type="log8")
    return made


def by_ours(
    k: int, packing: Packing, logits: Tensor, students: Students, full: Full, temperature: float
) -> dict[str, float]:
    """Sums over a row's positions of what our codec costs."""
    said = keep_top_k(logits, k, temperature)
    started = time.perf_counter()
    block = packing.pack(said.stored)
    packed = time.perf_counter()
    again = packing.unpack(block)
    unpacked = time.perf_counter()
    return {
        "positions": len(logits),
        "bytes": len(block),
        "mass": float(said.mass_kept.sum()),
        "flat": float(said.hidden_kl.sum()),
        "whole": float(said.whole_kl.sum()),
        "encode": packed - started,
        "decode": unpacked - packed,
        **errors(students, full, to_rows(again, temperature), temperature),
    }


def by_distillkit(name: str, logits: Tensor, students: Students, full: Full, temperature: float) -> dict[str, float]:
    """The same of one of DistillKit's settings."""
    top = distillkit(logits, temperature, *DISTILLKIT[name])
    return {
        "positions": len(logits),
        "bytes": distillkit_bytes(logits.shape[-1], *DISTILLKIT[name]) * len(logits),
        "mass": float((1 - top.log_tail.exp()).sum()),
        **errors(students, full, top, temperature),
    }


def measure(teacher: nn.Module, rows: Sequence[Sequence[int]], temperature: float) -> list[tuple[str, ...]]:
    """A line of the table for each k, for each of DistillKit's settings, and for the whole vocabulary."""
    width = int(teacher.config.vocab_size)
    codecs = packings(teacher, rows[::4], temperature)
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for number, (logits, students) in enumerate(answers(teacher, rows)):

        def to_all(x: Tensor, teacher_logits: Tensor = logits) -> Tensor:
            return token_kl(x, teacher_logits, temperature=temperature)

        full = {name: with_gradient(student, to_all) for name, student in students.items()}
        for k, packing in codecs.items():
            if k < width or number < 2:  # the whole vocabulary takes as long as all the others
                sums[f"{k}"].update(by_ours(k, packing, logits, students, full, temperature))
        for name, (k, *_) in DISTILLKIT.items():
            if k < width:
                found = by_distillkit(name, logits, students, full, temperature)
                sums[f"DistillKit {name} ({k})"].update(found)
    return [_line(name, values, temperature) for name, values in sums.items()]


def _line(name: str, values: Mapping[str, float], temperature: float) -> tuple[str, ...]:
    positions = values["positions"]
    line = [f"{temperature:g}", name, f"{values['bytes'] / positions:.0f}", f"{values['mass'] / positions:.3f}"]
    line.append(f"{100 * values['flat'] / values['whole']:.1f} %" if "flat" in values else "")
    for student in ("early", "late"):
        full, sparse = values[f"{student} full"] / positions, values[f"{student} sparse"] / positions
        angle = math.sqrt(values[f"{student} gradient"] / values[f"{student} gradient full"])
        line += [f"{full:.3f}", f"{sparse - full:+.4f}", f"{100 * angle:.2f} %"]
    line.append(f"{1e6 * values['encode'] / positions:.1f}" if "encode" in values else "")
    line.append(f"{1e6 * values['decode'] / positions:.1f}" if "decode" in values else "")
    return tuple(line)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--temperatures", type=float, nargs="+", default=TEMPERATURES)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    teacher, tokenizer, _ = load_model(arguments.teacher)
    data = load_dataset(arguments.data)
    blocks = tokenize_dataset(data, tokenizer, max_length=arguments.length, packing=True)["input_ids"]
    full = [ids for ids in blocks if len(ids) == arguments.length]
    rows = full[:: max(1, len(full) // arguments.rows)][: arguments.rows]
    print(f"{arguments.teacher}: vocabulary {teacher.config.vocab_size}, {len(rows)} rows of {arguments.length} tokens")
    print(f"{heading()}, wall time\n")
    columns = "T, k, bytes a token, mass kept, hidden from a flat student, early: KL, error, gradient, "
    columns += "late: KL, error, gradient, encode µs, decode µs"
    print(head(columns.split(", ")))
    for temperature in arguments.temperatures:
        for line in measure(teacher, rows, temperature):
            print(row(line), flush=True)


if __name__ == "__main__":
    main()
