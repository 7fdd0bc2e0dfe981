"""Students with experts: their router loss is transformers' own, added where their config asks for it, and told."""

from copy import deepcopy
from typing import Any

import pytest
import torch
import transformers
from torch.optim import SGD

from apt_model.events.records import StepDone
from apt_model.plugins.distillation_plugin import DistillationPlugin

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SIZES |= {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "num_experts_per_tok": 2,
    "router_aux_loss_coef": 0.5,
}
KINDS: dict[str, dict[str, Any]] = {
    "Mixtral": {"intermediate_size": 48, "num_local_experts": 4},
    "Qwen3Moe": {"moe_intermediate_size": 24, "num_experts": 4, "decoder_sparse_step": 1},
    "Olmoe": {"intermediate_size": 24, "num_experts": 4},
    "GraniteMoe": {"intermediate_size": 24, "num_local_experts": 4},
}
IDS = torch.randint(3, 64, (2, 10), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
MASK[1, 6:] = 0
LABELS = IDS.masked_fill(MASK == 0, -100)
PLAIN = {"seed": 0, "lang": "en", "max_grad_norm": 1e9, "beta": 1.0}


def made(kind: str, **more: Any) -> Any:
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(**SIZES | KINDS[kind] | more)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def taught(student: Any, teacher: Any, listener: Any, **settings: Any) -> Any:
    optimizer = SGD([p for p in student.parameters() if p.requires_grad], lr=0.1)
    batch = {"input_ids": IDS, "attention_mask": MASK}
    how = {"num_epochs": 1, "device": "cpu", "sinks": [listener], "optimizer": optimizer}
    DistillationPlugin({**PLAIN, **settings}).distill_model(student, teacher, [batch], **how)
    (step,) = listener.of(StepDone)
    return step


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_on_labels_alone_is_the_step_of_transformers_own_loss(kind: str, listener: Any, teacher: Any) -> None:
    student = made(kind, output_router_logits=True)
    by_hand = deepcopy(student).train()
    loss = by_hand(input_ids=IDS, attention_mask=MASK, labels=LABELS).loss  # cross-entropy and router loss
    loss.backward()
    SGD(by_hand.parameters(), lr=0.1).step()
    step = taught(student, teacher, listener)
    assert step.loss == pytest.approx(loss.item(), rel=1e-5)
    for (name, mine), theirs in zip(student.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5, msg=name)


def test_the_router_loss_is_logged_as_it_was_added(listener: Any, teacher: Any) -> None:
    student = made("Mixtral", output_router_logits=True)
    with torch.no_grad():
        gates = deepcopy(student)(input_ids=IDS, attention_mask=MASK, output_router_logits=True).router_logits
    balance = transformers.models.mixtral.modeling_mixtral.load_balancing_loss_func(gates, 4, 2, MASK)
    step = taught(student, teacher, listener, alpha=0.7, beta=0.3)
    assert step.router == pytest.approx(float(balance), rel=1e-5)
    assert step.loss == pytest.approx(0.7 * step.kd + 0.3 * step.ce + 0.5 * step.router, rel=1e-5)


def test_router_losses_of_a_window_count_by_their_tokens(listener: Any, teacher: Any) -> None:
    student = made("Mixtral", output_router_logits=True)
    balances = []
    for row in (0, 1):
        ids, mask = IDS[row : row + 1], MASK[row : row + 1]
        with torch.no_grad():
            balances.append(float(deepcopy(student)(input_ids=ids, attention_mask=mask).aux_loss))
    rows = [{"input_ids": IDS[row : row + 1], "attention_mask": MASK[row : row + 1]} for row in (0, 1)]
    settings = {**PLAIN, "gradient_accumulation_steps": 2}
    DistillationPlugin(settings).distill_model(
        student,
        teacher,
        rows,
        num_epochs=1,
        device="cpu",
        sinks=[listener],
        optimizer=SGD(student.parameters(), lr=0.1),
    )
    (step,) = listener.of(StepDone)
    assert step.router == pytest.approx((9 * balances[0] + 5 * balances[1]) / 14, rel=1e-5)


def notices_of(listener: Any) -> list[str]:
    return [event.key for event in listener.events if event.kind == "notice"]


def test_that_it_is_added_or_left_out_is_told_once(listener: Any, teacher: Any) -> None:
    step = taught(made("Mixtral", output_router_logits=True), teacher, listener)
    assert (notices_of(listener).count("notice.router_loss"), step.router is None) == (1, False)


@pytest.mark.parametrize("kind", ["Mixtral", "Qwen3Moe"])
def test_without_being_asked_for_it_is_left_out_and_that_is_told(kind: str, listener: Any, teacher: Any) -> None:
    step = taught(made(kind, output_router_logits=False), teacher, listener)
    assert (notices_of(listener).count("notice.router_loss_off"), step.router) == (1, None)


def test_a_student_without_experts_hears_nothing_of_them(listener: Any, teacher: Any, student: Any) -> None:
    step = taught(student, teacher, listener)
    assert (step.router, [key for key in notices_of(listener) if "router" in key]) == (None, [])
