"""Packed, flattened and padded rows: logits, loss and gradient are those of each row alone, in every causal family.

The right values are transformers' own, of each row by itself: its loss, and what autograd makes of it.
"""

import copy
import logging
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
import transformers
from torch import Tensor, nn
from transformers import DataCollatorWithFlattening

from apt_model.data.batch import Batch, to_batch
from apt_model.data.packing import pack_rows
from apt_model.errors import DataError, ModelError
from apt_model.models.forward import Forward
from apt_model.models.output_head import find_head
from tests.conftest import VOCABULARY
from tests.models.test_causality import ACCEPTED, COMMON, MAMBA, OPT, Family, make

LENGTHS = (5, 9, 3, 7, 12)
TWO = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64}
NEO = ("GPTNeoForCausalLM", "GPTNeoConfig", {**TWO, "attention_types": [[["global", "local"], 1]], "window_size": 4})
MPT = ("MptForCausalLM", "MptConfig", {"vocab_size": VOCABULARY, "d_model": 32, "n_heads": 4, "n_layers": 2})
EAGER = [(kind, config, {**sizes, "attn_implementation": "eager"}) for kind, config, sizes in ACCEPTED[:3]]
FAMILIES = [
    *(f for f in ACCEPTED if f[0] != "RwkvForCausalLM"),
    NEO,
    MPT,
    *EAGER,
]  # its backward pass fails in transformers
NAMES = [f"{kind}{'-eager' * ('attn_implementation' in sizes)}" for kind, _, sizes in FAMILIES]
ANY = pytest.mark.parametrize("family", FAMILIES, ids=NAMES)


def rows_of_tokens() -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(4, VOCABULARY, (length,), generator=generator).tolist() for length in LENGTHS]


def steep(family: Family) -> Any:
    """A model whose tokens see each other well: one with the weights it begins with hardly looks around."""
    torch.manual_seed(7)
    model = make(family)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    return model


def alone(model: nn.Module, rows: list[list[int]]) -> tuple[float, dict[str, Tensor]]:
    """Sum of the losses of the rows, each read alone, and its gradient: transformers' own, where that is shifted."""
    model.zero_grad()
    total = torch.zeros(())
    for row in rows:
        ids = torch.tensor([row])
        said = model(input_ids=ids, labels=ids)
        loss = F.cross_entropy(said.logits[0, :-1], ids[0, 1:])
        assert isinstance(model, transformers.BartForCausalLM) or torch.allclose(said.loss, loss)
        total = total + loss * (len(row) - 1)
    total.backward()
    return total.item(), gradients(model)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def together(model: nn.Module, batch: Batch, forward: Forward | None = None) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    logits = (forward or Forward(model, "student"))(model, batch)
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), reduction="sum")
    loss.backward()
    return loss.item(), gradients(model)


def packed() -> Batch:
    blocks = pack_rows([{"input_ids": row} for row in rows_of_tokens()], None, 20)
    assert len(blocks) == 2
    batch = to_batch([{"input_ids": ids, "labels": labels, "position_ids": at} for ids, labels, at in blocks])
    assert batch.attention_mask.sum() == sum(LENGTHS) < batch.attention_mask.numel()  # the last one is shorter
    return batch


def flattened() -> Batch:
    return to_batch(DataCollatorWithFlattening()([{"input_ids": row} for row in rows_of_tokens()]))


def padded(side: str) -> Batch:
    rows, longest = rows_of_tokens(), max(LENGTHS)
    pads = [[0] * (longest - len(row)) for row in rows]
    left = [[pad + row, [0] * len(pad) + [1] * len(row)] for pad, row in zip(pads, rows, strict=True)]
    right = [[row + pad, [1] * len(row) + [0] * len(pad)] for pad, row in zip(pads, rows, strict=True)]
    ids, mask = zip(*(left if side == "left" else right), strict=True)
    return to_batch({"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)})


LAYOUTS = {"packed": packed, "flattened": flattened, "left": lambda: padded("left"), "right": lambda: padded("right")}


@pytest.mark.parametrize("layout", LAYOUTS)
@ANY
def test_loss_and_gradient_are_those_of_the_rows_alone(family: Family, layout: str) -> None:
    model = steep(family)
    expected, slopes = alone(model, rows_of_tokens())
    loss, found = together(model, LAYOUTS[layout]())
    assert loss == pytest.approx(expected, rel=2e-5)
    assert found.keys() == slopes.keys()
    largest = max(float(slope.abs().max()) for slope in slopes.values())
    for name, slope in slopes.items():
        torch.testing.assert_close(found[name], slope, rtol=2e-3, atol=1e-4 * largest, msg=name)


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "OPTForCausalLM", "MambaForCausalLM"])
def test_hidden_states_and_gradient_checkpointing_keep_the_rows_apart(kind: str) -> None:
    _, config, sizes = next(family for family in ACCEPTED if family[0] == kind)
    model = steep((kind, config, {**sizes, **({"dropout": 0.0} if "OPT" in kind else {})}))
    head = find_head(model)
    assert head is not None
    batch, forward = packed(), Forward(model, "student")
    logits = forward(model, batch)
    torch.testing.assert_close(
        head.logits(forward.hidden(model, batch, head))[batch.labels != -100], logits[batch.labels != -100]
    )
    expected, slopes = together(model, batch, forward)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        model.gradient_checkpointing_enable()
    model.train()
    loss, found = together(model, batch, forward)
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, slope in slopes.items():
        torch.testing.assert_close(found[name], slope, rtol=1e-3, atol=1e-4)


def test_bf16_keeps_the_rows_apart_too() -> None:
    for family in (ACCEPTED[0], ACCEPTED[1]):
        model, batch = steep(family).to(torch.bfloat16), packed()
        forward = Forward(model, "student")
        other = batch.input_ids.clone()
        other[0, : LENGTHS[0]] = 4  # another first row
        changed = to_batch(
            {"input_ids": other, "position_ids": batch.position_ids, "attention_mask": batch.attention_mask}
        )
        with torch.no_grad():
            one, two = forward(model, batch), forward(model, changed)
        assert not torch.equal(one[0, : LENGTHS[0]], two[0, : LENGTHS[0]])
        assert torch.equal(one[0, LENGTHS[0] :], two[0, LENGTHS[0] :])


class Counting(nn.Module):
    """Says how many tokens it has seen: no causal mask helps against neighbours, nor do positions."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, input_ids: Tensor) -> Tensor:
        self.shapes.append(tuple(input_ids.shape))
        seen = F.one_hot(input_ids, VOCABULARY).cumsum(dim=1).float()
        return seen * self.scale


def test_somebodys_own_module_reads_packed_texts_in_rows_of_their_own() -> None:
    model, batch = Counting(), packed()
    logits = Forward(model, "student")(model, batch)
    assert model.shapes == [(len(LENGTHS), max(LENGTHS))]
    assert batch.position_ids is not None
    counts = logits.sum(dim=-1)[batch.attention_mask == 1]
    assert counts.tolist() == (batch.position_ids[batch.attention_mask == 1] + 1).tolist()


class Glancing(nn.Module):
    """Takes positions; a little of its logits is of all tokens before, or of where in the row a token stands."""

    def __init__(self, glances_at: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(VOCABULARY, VOCABULARY)
        self.glances_at = glances_at

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        own = self.embedding(input_ids)
        if self.glances_at == "neighbours":
            return own + 1e-3 * own.cumsum(dim=1)
        return own + 0.1 * torch.arange(input_ids.shape[1])[:, None] * torch.linspace(-1, 1, VOCABULARY)


@pytest.mark.parametrize("glances_at", ["neighbours", "places"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_model_that_glances_aside_or_counts_from_the_rows_beginning_is_found_out(
    glances_at: str, precision: torch.dtype
) -> None:
    model, batch = Glancing(glances_at).to(precision), packed()
    logits = Forward(model, "student")(model, batch)
    for row, number in ((0, 0), (0, 1), (1, 0)):
        assert batch.segments is not None
        own = batch.segments.numbers[row] == number
        own &= batch.attention_mask[row] == 1
        expected = model(batch.input_ids[row][own][None])[0]
        torch.testing.assert_close(logits[row][own], expected)


def test_a_model_is_tried_out_once_and_left_as_it_was() -> None:
    model = steep(ACCEPTED[1]).train()  # GPT-2 has dropout
    calls: list[int] = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    forward, state = Forward(model, "student"), torch.get_rng_state()
    forward(model, packed())
    tried = len(calls)
    torch.set_rng_state(state)
    again = forward(model, packed())
    assert len(calls) == tried + 1
    torch.set_rng_state(state)
    assert torch.equal(Forward(model, "student")(model, packed()), again)  # the trial has drawn no random number
    assert model.training


def test_transformers_advises_no_mask_where_positions_keep_the_texts_apart(caplog: pytest.LogCaptureFixture) -> None:
    kind, config, sizes = ACCEPTED[1]
    model = steep((kind, config, {**sizes, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}))
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        assert (packed().input_ids[:, -1] == 0).any()
        Forward(model, "student")(model, packed())
        assert caplog.text == ""
        transformers.utils.logging.warning_once.cache_clear()
        model(input_ids=torch.tensor([[5, 0]]))
        assert "attention_mask" in caplog.text
    finally:
        logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("family", [ACCEPTED[0], ACCEPTED[1], NEO], ids=lambda family: family[0])
def test_a_batchs_own_positions_go_to_the_model(family: Family) -> None:
    model = steep(family)
    ids, positions = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[0, 1, 5, 9]])
    batch = to_batch({"input_ids": ids, "position_ids": positions})
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=positions).logits
        assert torch.equal(Forward(model, "student")(model, batch), expected)
        assert not torch.allclose(model(input_ids=ids).logits, expected)


def test_packed_texts_with_gaps_and_padding_between_are_those_alone() -> None:
    model, ids = steep(ACCEPTED[0]), torch.tensor([[5, 6, 7, 11, 8, 9, 10, 12]])
    for own_mask, positions in (
        ([1, 1, 1, 0, 1, 1, 1, 0], [0, 1, 3, 0, 0, 2, 3, 0]),
        ([1, 1, 1, 0, 1, 1, 1, 0], [0, 1, 2, 3, 0, 1, 2, 3]),
        ([1, 1, 0, 1, 1, 1, 0, 1], [0, 1, 1, 2, 0, 1, 1, 2]),  # padding within each text
    ):
        mask, given = torch.tensor([own_mask]), torch.tensor([positions])
        batch = to_batch({"input_ids": ids, "attention_mask": mask, "position_ids": given})
        with torch.no_grad():
            found = Forward(model, "student")(model, batch)[0]
            for text in (range(4), range(4, 8)):
                own = [place for place in text if own_mask[place]]
                read = model(input_ids=ids[:, own], position_ids=given[:, own])
                torch.testing.assert_close(found[own], read.logits[0])


def test_positions_that_a_model_does_not_take_refuse_the_batch() -> None:
    model = steep(("MambaForCausalLM", "MambaConfig", MAMBA))
    raw = {"input_ids": torch.tensor([[5, 6, 7]])}
    forward = Forward(model, "student")
    with pytest.raises(ModelError, match="the student takes no position_ids"):
        forward.check(to_batch(raw | {"position_ids": torch.tensor([[0, 2, 4]])}))
    forward.check(to_batch(raw | {"position_ids": torch.tensor([[0, 1, 2]])}))
    forward.check(to_batch(raw | {"position_ids": torch.tensor([[0, 1, 0]])}))


@pytest.mark.parametrize("family", [ACCEPTED[1], NEO], ids=lambda family: family[0])
def test_a_flattened_batch_may_be_longer_than_the_models_positions(family: Family) -> None:
    kind, config, sizes = family
    model = steep(
        (kind, config, {**sizes, "n_positions": 12} if kind != NEO[0] else {**sizes, "max_position_embeddings": 12})
    )
    Forward(model, "student").check(flattened())
    assert flattened().input_ids.shape[1] == sum(LENGTHS) > 12
    assert together(model, flattened())[0] == pytest.approx(alone(model, rows_of_tokens())[0], rel=2e-5)


def test_positions_outside_a_models_table_refuse_the_batch() -> None:
    forward = Forward(make(("OPTForCausalLM", "OPTConfig", {**COMMON, **OPT, "max_position_embeddings": 8})), "teacher")
    for positions, got in (([0, 1, 8], "got 8"), ([-1, 0, 1], "got -1")):
        batch = to_batch({"input_ids": torch.tensor([[5, 6, 7]]), "position_ids": torch.tensor([positions])})
        with pytest.raises(DataError, match=f"outside the teacher's positions.*{got}"):
            forward.check(batch)
    forward.check(to_batch({"input_ids": torch.full((1, 14), 5), "position_ids": torch.arange(14)[None] % 7}))


def test_a_wrapper_of_peft_takes_what_the_model_in_it_takes() -> None:
    peft = pytest.importorskip("peft")
    model = steep(ACCEPTED[0])
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        wrapped = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(target_modules=["q_proj"], r=2))
    batch = to_batch({"input_ids": torch.tensor([[5, 6, 7, 8]]), "position_ids": torch.tensor([[0, 1, 5, 9]])})
    with torch.no_grad():
        torch.testing.assert_close(Forward(wrapped, "student")(wrapped, batch), Forward(model, "student")(model, batch))
