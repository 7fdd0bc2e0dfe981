"""Layers compared: values and gradients against float64 written out, one forward pass, nothing left behind."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from apt_model.data.encoded import IGNORED
from apt_model.distill.losses.layer_matching import LayerPair, hidden_distance, layer_pairs, relation_kl
from apt_model.errors import ConfigError, ModelError
from apt_model.events.records import Notice, StepDone
from tests.conftest import Listener
from tests.distill.plain import write_everything_out
from tests.distill.test_grader import same_course
from tests.distill.test_loop import Plain, run

BOTH = {"hidden_weight": 0.5, "attention_weight": 0.25}


@pytest.mark.parametrize(
    ("layer_map", "student", "teacher", "expected"),
    [
        ("last", 2, 8, [(2, 8)]),
        ("even", 2, 8, [(1, 4), (2, 8)]),
        ("even", 3, 8, [(1, 3), (2, 5), (3, 8)]),
        ("even", 4, 2, [(1, 1), (2, 1), (3, 2), (4, 2)]),
        ("1:2,3:7", 3, 8, [(1, 2), (3, 7)]),
    ],
)
def test_a_layer_map_says_which_layers_are_compared(
    layer_map: str, student: int, teacher: int, expected: list[tuple[int, int]]
) -> None:
    assert layer_pairs(layer_map, student, teacher) == tuple(LayerPair(*pair) for pair in expected)


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"got 3:4.*up to 2 of the student and 8 of the teacher"):
        layer_pairs("2:8,3:4", 2, 8)


def test_the_hidden_distance_and_its_gradient_are_those_written_out() -> None:
    student, teacher = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7)
    distance = hidden_distance(student, teacher)
    distance.sum().backward()
    assert student.grad is not None
    for found, s, t, gradient in zip(distance.tolist(), student.tolist(), teacher.tolist(), student.grad, strict=True):
        long, wide = math.sqrt(math.fsum(x * x for x in s)), math.sqrt(math.fsum(x * x for x in t))
        cosine = math.fsum(x * y for x, y in zip(s, t, strict=True)) / (long * wide)
        assert found == pytest.approx(1 - cosine, abs=1e-6)
        slope = [(cosine * x / long - y / wide) / long for x, y in zip(s, t, strict=True)]
        assert gradient.tolist() == pytest.approx(slope, abs=1e-6)


def relations_written_out(student: Tensor, teacher: Tensor, mask: Tensor, groups: int) -> dict[tuple[int, int], Tensor]:
    """KL of each real position, from (B, heads, L, d) in float64, token by token."""

    def row(states: Tensor, b: int, group: int, i: int) -> Tensor:
        own = states.shape[1] // groups
        vectors = [states[b, group * own : (group + 1) * own, j].flatten() for j in range(states.shape[2])]
        seen = [j for j in range(i + 1) if mask[b, j]]
        return torch.softmax(torch.stack([vectors[i] @ vectors[j] / len(vectors[i]) ** 0.5 for j in seen]), dim=0)

    found = {}
    for b, i in mask.nonzero().tolist():
        rows = [(row(teacher, b, group, i), row(student, b, group, i)) for group in range(groups)]
        found[b, i] = torch.stack([(p * (p.log() - q.log())).sum() for p, q in rows]).mean()
    return found


def test_the_attention_kl_and_its_gradient_are_those_written_out_whatever_the_heads_and_the_padding() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])  # padded on the left, and on the right
    student, teacher = torch.randn(2, 6, 5, 2, requires_grad=True), torch.randn(2, 4, 5, 3)
    kl = relation_kl(student, teacher, mask)
    (gradient,) = torch.autograd.grad(kl[mask != 0].sum(), student)
    exact = student.detach().double().requires_grad_()
    expected = relations_written_out(exact, teacher.double(), mask, groups=2)
    (slope,) = torch.autograd.grad(torch.stack(list(expected.values())).sum(), exact)
    assert {place: kl[place].item() for place in expected} == pytest.approx(
        {place: value.item() for place, value in expected.items()}, abs=1e-6
    )
    torch.testing.assert_close(gradient, slope.float(), rtol=1e-4, atol=1e-6)
    assert gradient.abs().sum(dim=(1, 3))[mask == 0].max() == 0


class Asked:
    """Keeps the query, key and value of each layer, by asking torch what its attention is called with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []
        own = nn.functional.scaled_dot_product_attention

        def attend(query: Tensor, key: Tensor, value: Tensor, **more: Any) -> Tensor:
            self.calls.append((query, key, value))
            return own(query, key, value, **more)

        monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", attend)


def test_a_step_is_the_formula_written_out_over_the_tokens_of_the_whole_window(
    listener: Listener,
    make_model: Callable[..., Any],
    teacher: nn.Module,
    make_batches: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Terms, loss and norm of the gradient, the projection's too, by plain autograd in float64."""
    student, batches = make_model(hidden=16, layers=2, seed=2), make_batches(count=3)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.0, momentum=0.9)
    projections: list[Tensor] = []

    class Spy(Listener):
        def emit(self, event: Any) -> None:
            super().emit(event)
            if isinstance(event, StepDone):
                projections.extend(optimizer.param_groups[0]["params"][len(list(student.parameters())) :])

    heard = Spy()
    more = {"gradient_accumulation_steps": 3, "layer_map": "even", "temperature": 2.0, "max_grad_norm": None, **BOTH}
    run(heard, student, teacher, batches, optimizer=optimizer, **more)
    (step,) = heard.of(StepDone)
    assert [tuple(one.shape) for one in projections] == [(32, 16), (32, 16)]

    exact, wise = copy.deepcopy(student).double().train(), copy.deepcopy(teacher).double()
    weights = [one.detach().double().requires_grad_() for one in projections]
    asked, sums, count = Asked(monkeypatch), dict.fromkeys(("kd", "ce", "hidden", "attention"), 0.0), 0
    for batch in batches:
        ids, mask = batch["input_ids"], batch["attention_mask"]
        asked.calls.clear()
        own = exact(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        with torch.no_grad():
            theirs = wise(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        for b, i in mask[:, 1:].nonzero().tolist():
            count += 1
            p, q = ((x.logits[b, i] / 2).log_softmax(-1) for x in (theirs, own))
            sums["kd"] += 4 * (p.exp() * (p - q)).sum()
            sums["ce"] -= own.logits[b, i].log_softmax(-1)[ids[b, i + 1]]
            for layer in (1, 2):
                s, t = weights[layer - 1] @ own.hidden_states[layer][b, i], theirs.hidden_states[layer][b, i]
                sums["hidden"] += (1 - s @ t / (s.norm() * t.norm())) / 2
        for layer in (0, 1):
            for s, t in zip(asked.calls[layer], asked.calls[layer + 2], strict=True):
                for (b, i), kl in relations_written_out(s, t, mask, groups=2).items():
                    if i + 1 < mask.shape[1] and mask[b, i + 1]:
                        sums["attention"] += kl / 6
    terms = {name: total / count for name, total in sums.items()}
    found = {name: getattr(step, name) for name in terms}
    assert found == pytest.approx({name: value.item() for name, value in terms.items()}, rel=1e-4)
    loss = 0.7 * terms["kd"] + 0.3 * terms["ce"] + 0.5 * terms["hidden"] + 0.25 * terms["attention"]
    assert step.loss == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    gradients = [p.grad for p in (*exact.parameters(), *weights)]
    assert step.grad_norm == pytest.approx(torch.stack([g.norm() for g in gradients]).norm().item(), rel=1e-4)
    assert all(one.norm() > 0 for one in gradients[-2:])
    assert optimizer.param_groups[0]["params"] == list(student.parameters())
    assert not any(one is other for one in optimizer.state for other in projections)


def test_fused_and_written_out_go_the_same_way(
    listener: Listener,
    teacher: nn.Module,
    student: nn.Module,
    make_batches: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other, batches, heard = copy.deepcopy(student), make_batches(), Listener()
    more = {"gradient_accumulation_steps": 2, "num_epochs": 2, **BOTH}
    run(listener, student, teacher, batches, **more)
    write_everything_out(monkeypatch)
    run(heard, other, teacher, batches, **more)
    same_course(listener, heard, rel=1e-4)
    for one, two in zip(listener.of(StepDone), heard.of(StepDone), strict=True):
        assert (one.hidden, one.attention) == pytest.approx((two.hidden, two.attention), rel=1e-4)


def test_an_equal_student_is_at_no_distance_and_a_student_that_learns_comes_nearer(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    run(listener, copy.deepcopy(teacher), teacher, make_batches(), max_steps=1, **BOTH)
    (step,) = listener.of(StepDone)
    assert (step.hidden, step.attention) == pytest.approx((0, 0), abs=1e-6)
    heard = Listener()
    for name, weight in teacher.named_parameters():
        if "_proj" in name and "self_attn" in name:
            weight.data.mul_(20)  # drawn so small, all tokens would relate alike
    run(heard, student, teacher, make_batches(), num_epochs=12, hidden_weight=0.5, attention_weight=2.0)
    first, *_, last = heard.of(StepDone)
    assert last.hidden < 0.8 * first.hidden
    assert last.attention < 0.8 * first.attention


def test_both_models_are_run_once_a_batch_and_are_as_they_were_afterwards(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    sdpa, keys = ALL_ATTENTION_FUNCTIONS["sdpa"], set(student.state_dict())
    passes = {"student": 0, "teacher": 0}

    def counted(role: str) -> Any:
        return lambda *_: passes.__setitem__(role, passes[role] + 1)

    student.model.layers[0].register_forward_hook(counted("student"))
    teacher.model.layers[0].register_forward_hook(counted("teacher"))
    run(listener, student, teacher, make_batches(count=4), **BOTH)
    # and twice on three tokens, for its head and for its layers; twice on eight, to see whether it is causal
    assert passes == {"student": 4 + 2 + 2, "teacher": 4 + 2 + 2}
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa
    assert set(student.state_dict()) == keys
    assert not student._forward_hooks
    assert not student._forward_pre_hooks


def test_comparing_layers_draws_no_random_number(
    make_model: Callable[..., Any], teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    """With dropout, the first step's other terms tell."""
    heard = []
    for weights in ({}, BOTH):
        heard.append(Listener())
        student = make_model(hidden=16, layers=1, seed=2, attention_dropout=0.3)
        run(heard[-1], student, teacher, make_batches(), max_steps=1, seed=5, **weights)
    (plain,), (matched,) = (one.of(StepDone) for one in heard)
    assert (plain.kd, plain.ce) == (matched.kd, matched.ce)
    assert (plain.hidden, plain.attention) == (None, None)
    assert matched.loss == pytest.approx(plain.loss + 0.5 * matched.hidden + 0.25 * matched.attention)


def test_what_is_compared_is_said_once(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    run(listener, student, teacher, make_batches(), hidden_weight=1.0)
    assert [one.values for one in listener.of(Notice) if one.key == "notice.matching"] == [{"pairs": "1:2"}]


def test_what_hides_its_layers_is_refused_in_one_line(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    with pytest.raises(ModelError, match=r"the student does not expose its .*hidden_weight=0"):
        run(listener, Plain(lambda x: x), teacher, make_batches(), hidden_weight=1.0)
    student.set_attn_implementation("eager")
    with pytest.raises(ModelError, match=r"student does not expose its attention; got attn_implementation=eager"):
        run(listener, student, teacher, make_batches(), attention_weight=1.0)
    run(listener, student, teacher, make_batches(), hidden_weight=1.0)


def test_positions_that_are_not_learned_from_do_not_count(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    """A batch and its first half alone: the rest is padding, or given."""
    (batch,) = make_batches(count=1)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    labels[:, 8:] = IGNORED
    heard = Listener()
    run(listener, copy.deepcopy(student), teacher, [{**batch, "labels": labels}], **BOTH)
    cut = {name: tensor[:, :8] for name, tensor in batch.items()}
    run(heard, student, teacher, [cut], **BOTH)
    (one,), (other,) = listener.of(StepDone), heard.of(StepDone)
    assert (one.hidden, one.attention) == pytest.approx((other.hidden, other.attention), rel=1e-5)
