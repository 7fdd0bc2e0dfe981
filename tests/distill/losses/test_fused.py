"""The fused loss against the same formulas written out in float64, with plain autograd for the gradients."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from apt_model.distill.losses.chunk_size import BUDGET, chunk_rows_for
from apt_model.distill.losses.fused import HeadInput, StudentOutput, WrittenLogits, fused_distillation
from apt_model.distill.losses.fused_pass import FusedLoss
from apt_model.distill.losses.logit_blocks import HeadSignal, Signal, TensorSignal, TopRows, TopSignal
from apt_model.distill.losses.objective import Objective
from apt_model.models.output_head import OutputHead

N, H, V = 37, 16, 97
KINDS = [
    ("forward_kl", None), ("reverse_kl", None), ("jsd", 0.5), ("jsd", 0.1), ("jsd", 0.0), ("jsd", 1.0),
    ("skew_kl", 0.1), ("skew_kl", 0.0), ("skew_reverse_kl", 0.1), ("skew_reverse_kl", 0.0),
]  # fmt: skip


def divergence_written_out(kind: str, mixture: float | None, p: Tensor, q: Tensor) -> Tensor:
    """Each kind as its paper has it, (N)."""

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a * (a.log() - b.log())).sum(-1)

    if kind == "forward_kl" or (kind, mixture) == ("jsd", 0.0):
        return kl(p, q)
    if kind == "reverse_kl" or (kind, mixture) == ("jsd", 1.0):
        return kl(q, p)
    assert mixture is not None
    if kind == "jsd":
        m = mixture * p + (1 - mixture) * q
        return mixture * kl(p, m) + (1 - mixture) * kl(q, m)
    if kind == "skew_kl":
        return kl(p, mixture * p + (1 - mixture) * q)
    return kl(q, (1 - mixture) * p + mixture * q)


def fuse(student: StudentOutput, teacher: Signal, labels: Tensor, temperature: float, **settings: Any) -> FusedLoss:
    """The fused loss; `settings` are those of the objective, or arguments."""
    of_objective = {key: settings.pop(key) for key in ("alpha", "beta", "kind", "mixture") if key in settings}
    objective = Objective(**{"temperature": temperature, "alpha": 0.7, "beta": 0.3} | of_objective)
    return fused_distillation(student, teacher, labels, objective=objective, **settings)


class Example:
    """N positions of a student with a head, and of a teacher with another."""

    def __init__(self, *, bias: bool = False, scale: float = 1.0, softcap: float | None = None, count: int = N) -> None:
        self.head = OutputHead(linear=nn.Linear(H, V, bias=bias), scale=scale, softcap=softcap)
        self.teacher = OutputHead(linear=nn.Linear(24, V))
        for head, spread in ((self.head, 0.8), (self.teacher, 0.6)):
            nn.init.normal_(head.linear.weight, std=spread)
        self.hidden, self.teacher_hidden = torch.randn(count, H, requires_grad=True), torch.randn(count, 24)
        self.labels = torch.randint(V, (count,))

    def signal(self, temperature: float, width: int = V, dtype: torch.dtype = torch.float32) -> HeadSignal:
        return HeadSignal(self.teacher_hidden, self.teacher, temperature=temperature, width=width, dtype=dtype)

    def fused(
        self, temperature: float = 2.0, *, signal: Any = None, dtype: torch.dtype | None = None, **settings: Any
    ) -> FusedLoss:
        states = HeadInput(hidden=self.hidden, head=self.head, product_dtype=dtype)
        signal = signal or self.signal(temperature)
        return fuse(states, signal, self.labels, temperature, **{"chunk_rows": 16} | settings)

    def gradients(self) -> list[Tensor]:
        linear = self.head.linear
        return [x.grad for x in (self.hidden, linear.weight, linear.bias) if x is not None and x.grad is not None]

    def exact(
        self, temperature: float, *, alpha: float = 0.7, beta: float = 0.3, width: int = V, kind: str = "forward_kl",
        mixture: float | None = None, teacher_logits: Tensor | None = None,
    ) -> tuple[list[float], list[Tensor]]:  # fmt: skip
        """KD, CE, loss and the gradients, in float64."""
        linear = self.head.linear
        leaves = [x.detach().double().requires_grad_() for x in (self.hidden, linear.weight)]
        raw = leaves[0] @ leaves[1].t()
        if linear.bias is not None:
            leaves.append(linear.bias.detach().double().requires_grad_())
            raw = raw + leaves[2]
        z, cap = raw * self.head.scale, self.head.softcap
        z = (z if cap is None else cap * torch.tanh(z / cap))[:, :width]
        if teacher_logits is None:
            teacher_logits = self.teacher.logits(self.teacher_hidden)
        u = teacher_logits.detach().double()[:, :width]
        p, q = torch.softmax(u / temperature, -1), torch.softmax(z / temperature, -1)
        kd = temperature**2 * divergence_written_out(kind, mixture, p, q).sum()
        ce = -z.log_softmax(-1).gather(1, self.labels[:, None]).sum()
        loss = alpha * kd + beta * ce
        loss.backward()
        return [kd.item(), ce.item(), loss.item()], [x.grad for x in leaves if x.grad is not None]


def compare(found: FusedLoss, example: Example, exact: tuple[list[float], list[Tensor]], tolerance: float) -> None:
    assert [found.kd.item(), found.ce.item(), found.loss.item()] == pytest.approx(exact[0], rel=tolerance, abs=1e-4)
    ours = example.gradients()
    assert len(ours) == len(exact[1])
    for one, other in zip(ours, exact[1], strict=True):
        assert (one.double() - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize(("kind", "mixture"), KINDS)
@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0, 4.0])
@pytest.mark.parametrize(
    "form", [{}, {"bias": True}, {"softcap": 5.0}, {"bias": True, "softcap": 5.0, "scale": 0.5}], ids=str
)
def test_value_and_gradients_equal_float64(
    kind: Any, mixture: float | None, temperature: float, form: dict[str, Any]
) -> None:
    for alpha in (0.7, 1.0, 0.0):
        example = Example(**form)
        weights = {"alpha": alpha, "beta": 1 - alpha, "kind": kind, "mixture": mixture}
        found = example.fused(temperature, **weights)
        found.loss.backward()
        compare(found, example, example.exact(temperature, **weights), 1e-5)


@pytest.mark.parametrize("chunk_rows", [1, 5, 16, 37, 1000, None])
@pytest.mark.parametrize("block", [1, 3 * 128, 10**9])
def test_the_size_of_a_chunk_and_of_a_block_changes_nothing(
    chunk_rows: int | None, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apt_model.distill.losses.fused_pass.BLOCK_FLOATS", block)
    example = Example(bias=True)
    found = example.fused(2.0, chunk_rows=chunk_rows)
    found.loss.backward()
    compare(found, example, example.exact(2.0), 1e-6 * 3)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0, 4.0, 8.0])
def test_labels_too_improbable_for_a_float_leave_the_loss_exact(temperature: float) -> None:
    torch.manual_seed(7)
    example = Example()
    with torch.no_grad():
        example.hidden *= 20
        logits = example.head.logits(example.hidden)
        example.labels[::2] = logits.argmin(dim=1)[::2]
        assert logits.softmax(1).gather(1, example.labels[:, None]).min() == 0  # below any float32
    found = example.fused(temperature)
    found.loss.backward()
    compare(found, example, example.exact(temperature), 1e-5)


def test_no_position_at_all_gives_zero_and_gradients_of_zero() -> None:
    example = Example(bias=True, count=0)
    found = example.fused()
    (3 * found.loss).backward()
    assert (found.loss.item(), found.kd.item(), found.ce.item()) == (0, 0, 0)
    assert [g.abs().sum().item() for g in example.gradients()] == [0, 0, 0]


def test_a_shared_vocabulary_narrower_than_the_head_leaves_the_rest_of_it_alone() -> None:
    example = Example(bias=True)
    example.labels %= 80
    found = example.fused(2.0, signal=example.signal(2.0, width=80))
    found.loss.backward()
    compare(found, example, example.exact(2.0, width=80), 1e-5)
    assert example.head.linear.weight.grad[80:].abs().sum() == 0  # type: ignore[index]


def test_a_weight_on_the_loss_and_a_factor_from_outside_reach_the_gradients() -> None:
    plain, weighed = Example(), Example()
    for x in (plain, weighed):
        x.hidden, x.head, x.teacher = plain.hidden, plain.head, plain.teacher
        x.teacher_hidden, x.labels = plain.teacher_hidden, plain.labels
    plain.fused().loss.backward()
    expected = [g.clone() for g in plain.gradients()]
    plain.hidden.grad = plain.head.linear.weight.grad = None
    (weighed.fused(weight=0.125).loss * 4).backward()
    for one, other in zip(weighed.gradients(), expected, strict=True):
        torch.testing.assert_close(one, 0.5 * other)


def test_gradients_add_up_over_batches_and_where_head_and_embedding_are_one() -> None:
    """Tied weights: the gradient of the head and that of the embedding meet in one parameter."""
    embed, head = nn.Embedding(V, H), nn.Linear(H, V, bias=False)
    nn.init.normal_(embed.weight, std=0.5)
    head.weight = embed.weight
    exact = embed.weight.detach().double().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for _ in range(2):
        ids, labels, teacher = torch.randint(V, (9,)), torch.randint(V, (9,)), torch.randn(9, V)
        signal = TensorSignal(teacher, temperature=2.0, width=V)
        found = fuse(HeadInput(hidden=embed(ids), head=OutputHead(linear=head)), signal, labels, 2.0)
        found.loss.backward()
        z = exact[ids] @ exact.t()
        kd = 4 * F.kl_div((z / 2).log_softmax(-1), (teacher.double() / 2).softmax(-1), reduction="sum")
        total = total + 0.7 * kd + 0.3 * F.cross_entropy(z, labels, reduction="sum")
    total.backward()
    assert embed.weight.grad is not None
    assert exact.grad is not None
    assert (embed.weight.grad.double() - exact.grad).norm() <= 1e-5 * exact.grad.norm()


def test_a_frozen_head_or_backbone_gets_no_gradient_and_the_other_its_own() -> None:
    example = Example(bias=True)
    exact = example.exact(2.0)[1]
    example.head.linear.requires_grad_(False)
    example.fused().loss.backward()
    assert example.head.linear.weight.grad is None
    assert (example.hidden.grad.double() - exact[0]).norm() <= 1e-5 * exact[0].norm()  # type: ignore[union-attr]
    example.head.linear.requires_grad_()
    example.hidden = example.hidden.detach()
    example.fused().loss.backward()
    assert (example.head.linear.weight.grad.double() - exact[1]).norm() <= 1e-5 * exact[1].norm()  # type: ignore[union-attr]
    with torch.no_grad():
        assert not example.fused().loss.requires_grad


def test_gradients_are_handed_out_once() -> None:
    loss = Example().fused().loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


@pytest.mark.parametrize("form", [{}, {"bias": True, "softcap": 5.0}], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.004)])
def test_a_head_in_low_precision_is_near_and_its_sums_stay_float32(
    dtype: torch.dtype, tolerance: float, form: dict[str, Any]
) -> None:
    for how in ("given", "autocast"):
        example = Example(**form)
        signal = example.signal(3.0, dtype=dtype)
        with torch.autocast("cpu", dtype, enabled=how == "autocast"):
            found = example.fused(3.0, signal=signal, dtype=dtype if how == "given" else None)
        found.loss.backward()
        assert found.loss.dtype == torch.float32
        assert {g.dtype for g in example.gradients()} == {torch.float32}
        compare(found, example, example.exact(3.0), tolerance)
        assert (example.gradients()[0].double() - example.exact(3.0)[1][0]).norm() > 0


def test_columns_that_the_teacher_rules_out_count_nothing() -> None:
    example, out = Example(), torch.randn(N, V)
    out[:, 90:] = -torch.inf
    example.labels %= 90
    found = example.fused(2.0, signal=TensorSignal(out, temperature=2.0, width=V))
    found.loss.backward()
    exact = example.exact(2.0, teacher_logits=out.clamp(min=-100))  # e^-50 of the rest: nothing
    compare(found, example, exact, 1e-5)
    with torch.no_grad():
        example.teacher.linear.bias[90:] = -torch.inf
    example.hidden.grad = example.head.linear.weight.grad = None
    found = example.fused(2.0)
    found.loss.backward()
    assert all(torch.isfinite(g).all() for g in example.gradients())
    assert torch.isfinite(found.teacher_log_sum)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_teacher_that_is_not_finite_shows(value: float) -> None:
    logits = torch.randn(N, V)
    assert torch.isfinite(Example().fused(signal=TensorSignal(logits, temperature=2.0, width=V)).teacher_log_sum)
    logits[20, 3] = value
    assert not torch.isfinite(Example().fused(signal=TensorSignal(logits, temperature=2.0, width=V)).teacher_log_sum)


def top_signal(logits: Tensor, k: int, temperature: float) -> TopSignal:
    """The top K and the tails, from full logits."""
    at_t, at_one = torch.log_softmax(logits / temperature, -1), torch.log_softmax(logits, -1)
    values, ids = at_t.topk(k)
    rest = torch.ones_like(logits, dtype=torch.bool).scatter_(1, ids, False)
    tails = [torch.where(rest, x, -torch.inf).logsumexp(-1) for x in (at_t, at_one)]
    return TopSignal(lambda a, b: TopRows(ids[a:b], values[a:b], tails[0][a:b], tails[1][a:b]), width=V)


def test_the_top_of_a_teacher_is_exact_where_it_is_all_and_a_lower_bound_where_not() -> None:
    example, logits = Example(), 2 * torch.randn(N, V)
    exact = example.exact(2.0, teacher_logits=logits)
    found = example.fused(2.0, signal=top_signal(logits, V, 2.0), shown=[3])
    found.loss.backward()
    compare(found, example, exact, 1e-5)
    values = [example.fused(2.0, signal=top_signal(logits, k, 2.0)).kd.item() for k in (1, 5, 20, 60, 97)]
    assert values == sorted(values)
    assert values[0] < 0.9 * values[-1] == pytest.approx(0.9 * exact[0][0], rel=1e-5)
    whole = example.fused(2.0, signal=TensorSignal(logits, temperature=2.0, width=V), shown=[3]).shown
    assert found.shown is not None
    assert whole is not None
    assert len(found.shown.teacher_entropy) == 0, "of a teacher who is known in part it is not known"
    for one, other in zip(found.shown._replace(teacher_entropy=whole.teacher_entropy), whole, strict=True):
        torch.testing.assert_close(one, other)


def test_the_gradient_to_the_top_and_the_tail_is_that_of_the_bucketed_kl() -> None:
    example, logits = Example(), 2 * torch.randn(N, V)
    ids = logits.topk(7).indices
    found = example.fused(2.0, signal=top_signal(logits, 7, 2.0))
    found.loss.backward()
    hidden = example.hidden.detach().double().requires_grad_()
    z = hidden @ example.head.linear.weight.detach().double().t()
    p, q = ((x / 2).softmax(-1) for x in (logits.double(), z))
    tops = [torch.cat([x.gather(1, ids), 1 - x.gather(1, ids).sum(1, keepdim=True)], 1) for x in (p, q)]
    kd = 4 * (tops[0] * (tops[0].log() - tops[1].log())).sum()
    (0.7 * kd + 0.3 * F.cross_entropy(z, example.labels, reduction="sum")).backward()
    assert found.kd.item() == pytest.approx(kd.item(), rel=1e-5)
    ours, exact = example.hidden.grad, hidden.grad
    assert ours is not None
    assert exact is not None
    assert (ours.double() - exact).norm() <= 1e-5 * exact.norm()


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0])
def test_what_is_shown_is_what_the_logits_say_and_changes_no_gradient(temperature: float) -> None:
    torch.manual_seed(1)
    blind = Example(softcap=5.0)
    blind.fused(temperature).loss.backward()
    torch.manual_seed(1)
    example, rows = Example(softcap=5.0), [0, 3, 15, 16, 36]
    found = example.fused(temperature, shown=rows)
    found.loss.backward()
    assert all(torch.equal(one, other) for one, other in zip(example.gradients(), blind.gradients(), strict=True))
    shown = found.shown
    assert shown is not None
    z, u = (x.detach().double()[rows] for x in (example.head.logits(example.hidden),
                                                example.teacher.logits(example.teacher_hidden)))  # fmt: skip
    for logits, ids, probs in (
        (z, shown.student_ids, shown.student_probs),
        (u, shown.teacher_ids, shown.teacher_probs),
    ):
        best = logits.softmax(-1).sort(descending=True)
        assert torch.equal(ids, best.indices[:, :5])
        torch.testing.assert_close(probs.double(), best.values[:, :5], rtol=1e-5, atol=1e-7)
        assert torch.equal(ids[:, 0], logits.argmax(-1))
    expected = divergence_written_out("forward_kl", None, u.softmax(-1), z.softmax(-1))
    torch.testing.assert_close(shown.kl_nats.double(), expected, rtol=1e-5, atol=1e-6)
    for logits, entropy in ((z, shown.student_entropy), (u, shown.teacher_entropy)):
        torch.testing.assert_close(
            entropy.double(), torch.distributions.Categorical(logits=logits).entropy(), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(("kind", "mixture"), KINDS)
@pytest.mark.parametrize("temperature", [1.0, 3.0, 4.0])
def test_the_pulls_at_shown_tokens_are_the_norms_of_the_terms_gradients(
    kind: Any, mixture: float | None, temperature: float
) -> None:
    example, rows = Example(softcap=5.0), [0, 3, 15, 16, 36]
    pulls = example.fused(temperature, shown=rows, kind=kind, mixture=mixture).pulls
    assert pulls is not None
    z, u = (
        head.logits(hidden).detach().double()
        for head, hidden in ((example.head, example.hidden), (example.teacher, example.teacher_hidden))
    )
    z.requires_grad_()
    p, q = torch.softmax(u / temperature, -1), torch.softmax(z / temperature, -1)
    terms = {
        "kd_pull": 0.7 * temperature**2 * divergence_written_out(kind, mixture, p, q).sum(),
        "ce_pull": 0.3 * F.cross_entropy(z, example.labels, reduction="sum"),
    }
    for name, term in terms.items():
        (gradient,) = torch.autograd.grad(term, z)
        torch.testing.assert_close(getattr(pulls, name).double(), gradient[rows].norm(dim=1), rtol=1e-4, atol=1e-6)
    entropy = torch.distributions.Categorical(probs=p[rows]).entropy() / math.log(V)
    torch.testing.assert_close(pulls.softness.double(), entropy, rtol=1e-5, atol=1e-6)


def test_the_pull_of_a_teacher_known_in_part_is_that_of_what_it_is_known_to_say() -> None:
    example, logits = Example(), 2 * torch.randn(N, V)
    whole = example.fused(2.0, signal=TensorSignal(logits, temperature=2.0, width=V), shown=[3, 20]).pulls
    found = example.fused(2.0, signal=top_signal(logits, V, 2.0), shown=[3, 20]).pulls
    assert whole is not None
    assert found is not None
    torch.testing.assert_close(found.kd_pull, whole.kd_pull)
    torch.testing.assert_close(found.ce_pull, whole.ce_pull)
    assert len(found.softness) == 0


def written(example: Example, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """The example's logits among others that nobody learns from, NaN, and where they are."""
    logits = example.head.logits(example.hidden).to(dtype)
    positions = torch.randperm(2 * N)[: len(logits)].sort().values
    return torch.full((2 * N, V), torch.nan, dtype=dtype).index_copy(0, positions, logits), positions


@pytest.mark.parametrize(("kind", "mixture"), KINDS)
@pytest.mark.parametrize("form", [{}, {"bias": True, "softcap": 5.0, "scale": 0.5}], ids=str)
@pytest.mark.parametrize("width", [V, V - 7])
def test_logits_that_a_student_has_written_out_give_the_values_and_gradients_of_float64(
    kind: Any, mixture: float | None, form: dict[str, Any], width: int
) -> None:
    for temperature, alpha in ((2.0, 0.7), (3.0, 0.0), (1.0, 1.0)):
        example = Example(**form)
        example.labels %= width
        logits, positions = written(example)
        weights = {"alpha": alpha, "beta": 1 - alpha, "kind": kind, "mixture": mixture}
        student = WrittenLogits(logits=logits, positions=positions)
        found = fuse(student, example.signal(temperature, width), example.labels, temperature, chunk_rows=16, **weights)
        (2 * found.loss).backward()
        for gradient in example.gradients():
            gradient /= 2
        compare(found, example, example.exact(temperature, width=width, **weights), 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_written_logits_in_half_precision_lose_nothing_but_what_is_handed_back(dtype: torch.dtype) -> None:
    """Temperature 3, so that a factor applied before they are float32 would show; a weight too small for float16."""
    example = Example()
    logits = example.head.logits(example.hidden).detach().to(dtype).requires_grad_()
    signal = example.signal(3.0)
    found = fuse(WrittenLogits(logits=logits), signal, example.labels, 3.0, weight=1e-7)
    (1e7 * found.loss).backward()
    exact = logits.detach().double().requires_grad_()
    p = torch.softmax(example.teacher.logits(example.teacher_hidden).detach().double() / 3, -1)
    q = torch.softmax(exact / 3, -1)
    kd, ce = 9 * (p * (p / q).log()).sum(), -exact.log_softmax(-1).gather(1, example.labels[:, None]).sum()
    (0.7 * kd + 0.3 * ce).backward()
    assert [found.kd.item(), found.ce.item()] == pytest.approx([kd.item(), ce.item()], rel=2e-6)
    assert logits.grad is not None
    assert exact.grad is not None
    assert logits.grad.dtype == dtype
    assert (logits.grad.double() - exact.grad).norm() <= torch.finfo(dtype).eps * exact.grad.norm()


def test_only_the_logits_learned_from_get_a_gradient_and_with_none_all_get_zero() -> None:
    example = Example()
    logits, positions = (part.detach() for part in written(example))
    leaf = logits.clone().requires_grad_()
    student = WrittenLogits(logits=leaf, positions=positions)
    found = fuse(student, example.signal(2.0, V - 7), example.labels % (V - 7), 2.0)
    found.loss.backward()
    others = torch.ones(2 * N, dtype=torch.bool).index_fill(0, positions, False)
    assert leaf.grad is not None
    assert (leaf.grad[others] == 0).all()
    assert (leaf.grad[:, V - 7 :] == 0).all()
    assert (leaf.grad[positions, : V - 7] != 0).any(dim=1).all()
    nobody, leaf = Example(count=0), torch.zeros(3, V, requires_grad=True)
    empty = fuse(WrittenLogits(logits=leaf, positions=positions[:0]), nobody.signal(2.0), nobody.labels, 2.0)
    empty.loss.backward()
    assert leaf.grad is not None
    assert (empty.loss.item(), leaf.grad.abs().sum().item()) == (0, 0)
    unlearned = fuse(WrittenLogits(logits=logits, positions=positions), example.signal(2.0), example.labels, 2.0)
    assert unlearned.loss.item() == pytest.approx(example.exact(2.0)[0][2], rel=1e-5)
    assert not unlearned.loss.requires_grad


def test_of_written_logits_nothing_is_kept_but_their_gradient() -> None:
    example, kept = Example(), list[tuple[int, ...]]()
    logits, positions = written(example)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tuple(tensor.shape)), lambda packed: packed
    ):
        fuse(WrittenLogits(logits=logits, positions=positions), example.signal(2.0), example.labels, 2.0)
    assert kept == []


def test_a_label_or_a_teachers_token_that_the_student_rules_out_costs_infinity() -> None:
    example = Example()
    logits = example.head.logits(example.hidden).detach()
    ruled = logits.index_fill(1, example.labels[:1], -torch.inf)
    found = fuse(WrittenLogits(logits=ruled), example.signal(2.0), example.labels, 2.0)
    assert (found.kd.item(), found.ce.item()) == (math.inf, math.inf)
    teacher = example.teacher.logits(example.teacher_hidden).detach().index_fill(1, torch.tensor([5]), -torch.inf)
    ruled, labels = logits.index_fill(1, torch.tensor([5]), -torch.inf), example.labels.where(example.labels != 5, 6)
    found = fuse(WrittenLogits(logits=ruled), TensorSignal(teacher, temperature=2.0, width=V), labels, 2.0)
    assert math.isfinite(found.loss.item())  # both rule it out


def test_a_chunk_fits_its_budget() -> None:
    assert chunk_rows_for(151_936, 4) == 220
    assert 220 * 2 * 151_936 * 4 <= BUDGET < 221 * 2 * 151_936 * 4
    assert chunk_rows_for(8_000, 4) == 256
    assert chunk_rows_for(10**7, 4) == 32
