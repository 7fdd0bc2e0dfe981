"""Models taken apart into backbone and head say what they said whole."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from apt_model.models.output_head import find_head
from tests.distill.students.test_fresh import KINDS, SIZES

MORE = {
    "Cohere": {"logit_scale": 0.25},
    "Granite": {"logits_scaling": 8.0},
    "HyperCLOVAX": {"logits_scaling": 0.5},
    "Gemma3Text": {"head_dim": 16, "final_logit_softcapping": 3.0},
    "OPT": {"ffn_dim": 128, "word_embed_proj_dim": 32},
    "Llama": {"tie_word_embeddings": True},
}
EVERY = [*KINDS.items(), *MORE.items()]


def make(kind: str, **settings: Any) -> Any:
    config = getattr(transformers, f"{kind}Config")(**SIZES | settings)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(30)  # far enough from zero for a soft-cap to bend
    return model


@pytest.mark.parametrize(("kind", "settings"), EVERY, ids=[f"{kind}-{len(more)}" for kind, more in EVERY])
def test_backbone_and_head_of_each_kind_give_the_models_own_logits(kind: str, settings: dict[str, Any]) -> None:
    model, ids = make(kind, **settings), torch.randint(3, 50, (2, 7))
    head = find_head(model)
    assert head is not None
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        with head.bypassed() as seen:
            model(input_ids=ids)
        (hidden,) = seen
        assert whole.abs().max() > 0.2
        torch.testing.assert_close(head.logits(hidden), whole, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(model(input_ids=ids).logits, whole, rtol=0, atol=0)  # and it is whole again


def test_what_follows_the_head_is_found_and_its_config_not_believed() -> None:
    found = {kind: find_head(make(kind, **more)) for kind, more in MORE.items()}
    scales = {kind: head.scale for kind, head in found.items() if head}
    assert scales == {"Cohere": 0.25, "Granite": 0.125, "HyperCLOVAX": 0.5, "Gemma3Text": 1, "OPT": 1, "Llama": 1}
    assert found["Gemma3Text"].softcap == 3.0  # type: ignore[union-attr]
    lying = make("Llama")
    lying.config.logits_scaling, lying.config.final_logit_softcapping = 7.0, 9.0
    assert (find_head(lying).scale, find_head(lying).softcap) == (1.0, None)  # type: ignore[union-attr]


def test_a_head_that_cannot_be_proven_is_not_used(make_model: Callable[..., Any]) -> None:
    class Plus(transformers.LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.logits = output.logits + 0.01
            return output

    class Unlike(nn.Linear):
        """A layer that may be anything: quantized, adapted, sharded."""

    model = make_model()
    assert find_head(model) is not None
    assert find_head(Plus(model.config)) is None
    assert find_head(nn.Linear(3, 3)) is None
    assert find_head(nn.DataParallel(model)) is None
    model.lm_head.__class__ = Unlike
    assert find_head(model) is None
    hooked = make_model()
    hooked.lm_head.register_forward_hook(lambda module, given, out: out.clamp(max=0))
    assert find_head(hooked) is None


def test_looking_for_a_head_changes_nothing(make_model: Callable[..., Any]) -> None:
    model = make_model(attention_dropout=0.5).train()
    model.model.norm.eval()
    before, state = [m.training for m in model.modules()], torch.get_rng_state()
    find_head(model)
    assert [m.training for m in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)
    assert "forward" not in vars(model.lm_head)


def test_the_head_is_given_back_when_the_model_fails(make_model: Callable[..., Any]) -> None:
    model = make_model()
    head = find_head(model)
    assert head is not None
    with pytest.raises(IndexError), head.bypassed():
        model(input_ids=torch.tensor([[10**6]]))
    assert "forward" not in vars(model.lm_head)
