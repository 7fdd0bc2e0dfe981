"""Students pruned from their teacher: layers, hidden size, heads and neurons."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from apt_model.data.batch import to_batch
from apt_model.distill.students.activation_stats import watch_activity
from apt_model.distill.students.architecture import architecture_of, layers_of
from apt_model.distill.students.importance import best_heads, layers_by_angle, layers_by_loss, readings_of_loss
from apt_model.distill.students.shrink import shrink
from apt_model.distill.students.widths import Widths, fit_widths
from apt_model.errors import ConfigError, DataError, ModelError
from apt_model.models.pretrained import save_model
from tests.distill.students.conftest import KINDS, TURNABLE, make_teacher


def nothing() -> None:
    return


@pytest.mark.parametrize("method", ["rotate", "channels"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_student_as_large_as_its_teacher_says_bit_for_bit_the_same(kind: str, method: Any, ids: Tensor) -> None:
    teacher = make_teacher(kind, tied=kind in ("Gemma", "GPT2"))
    found = shrink(teacher, [ids], num_layers=4, hidden_size=64, num_attention_heads=8, method=method)
    with torch.no_grad():
        assert torch.equal(found.student(ids).logits, teacher(ids).logits)
    assert (found.energy_kept, found.layers) == (1.0, (0, 1, 2, 3))
    pointers = {p.data_ptr() for p in teacher.parameters()}
    assert not any(p.data_ptr() in pointers for p in found.student.parameters())


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", TURNABLE)
def test_a_stream_that_lies_in_half_of_its_channels_is_cut_without_a_loss(kind: str, tied: bool, ids: Tensor) -> None:
    """Its teacher is built wide from a narrow one, turned at random: only that half ever holds anything."""
    teacher = make_teacher(kind, tied=tied)
    architecture = architecture_of(teacher)
    layer_norm = architecture.norm == "layer"
    narrow, _ = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64))
    ones = torch.full((64, 1), 64**-0.5, dtype=torch.float64)
    narrow = narrow[:, : 31 if layer_norm else 32]
    if layer_norm:  # one direction of the student's is for the mean
        narrow, _ = torch.linalg.qr(narrow - ones @ (ones.T @ narrow))
    inside = narrow @ narrow.T
    for name in architecture.embeddings:
        module = teacher.get_submodule(name)
        module.weight.data = module.weight.data @ inside
    for layer in layers_of(teacher, architecture):
        for name in (architecture.attention_out, architecture.mlp_out):
            module = layer.get_submodule(name)
            module.weight.data = module.weight.data @ inside if kind == "GPT2" else inside @ module.weight.data
            if module.bias is not None:
                module.bias.data = inside @ module.bias.data
    last = teacher.get_submodule(architecture.last_norm)
    if tied:  # so that the tied head can take the last gains: all the same, and no bias
        torch.nn.init.constant_(last.weight, 0.9)
        if layer_norm:
            torch.nn.init.zeros_(last.bias)
    if layer_norm and teacher.get_output_embeddings().bias is None:
        torch.nn.init.zeros_(last.bias)  # the head has no bias to take it, and of a turned one only a part fits
    if kind == "GPTNeo":  # nor have its queries, keys and values
        for layer in layers_of(teacher, architecture):
            torch.nn.init.zeros_(layer.get_submodule("ln_1").bias)
    # heads and neurons all stay: where heads follow from the width, those that go write nothing
    sizes = {"hidden_size": 32, "intermediate_size": 256 if kind == "GPT2" else 128}
    if kind in ("GPT2", "GPTNeo", "GPTNeoX", "OPT", "Phi"):
        for layer in layers_of(teacher, architecture):
            weight = layer.get_submodule(architecture.attention_out).weight.data
            (weight if kind == "GPT2" else weight.T)[32:] = 0.0
    else:
        sizes["num_attention_heads"] = 8
    found = shrink(teacher, [ids], **sizes)
    assert found.energy_kept == pytest.approx(1.0)
    with torch.no_grad():
        theirs, mine = teacher(ids).logits, found.student(ids).logits
    assert (mine - theirs).abs().max() < 3e-3 * theirs.abs().max()  # the norms' eps weighs less in a narrow stream


@pytest.mark.parametrize("method", ["rotate", "channels"])
@pytest.mark.parametrize("kind", TURNABLE)
def test_both_cuts_together_leave_a_plain_model_that_loads_anywhere(
    kind: str, method: Any, ids: Tensor, tmp_path: Path, tokenizer: Any
) -> None:
    teacher = make_teacher(kind, tied=True).float()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    found = shrink(teacher, [ids], num_layers=2, hidden_size=32, method=method)
    config = found.student.config
    assert (found.layers, config.num_hidden_layers, config.hidden_size) == ((0, 3), 2, 32)
    assert found.student.get_output_embeddings().weight is found.student.get_input_embeddings().weight
    save_model(found.student, tokenizer, tmp_path)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, found.student(ids).logits)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


@pytest.mark.parametrize("kind", ["Gemma2", "Gemma3Text"])
def test_norms_behind_the_sublayers_are_cut_by_channels_only(kind: str, ids: Tensor) -> None:
    teacher = make_teacher(kind)
    assert shrink(teacher, [ids], hidden_size=32, method="channels").student(ids).logits.isfinite().all()
    with pytest.raises(ModelError, match="method=channels"):
        shrink(teacher, [ids], hidden_size=32)


def test_principal_components_keep_more_than_channels(ids: Tensor) -> None:
    teacher = make_teacher("Llama")
    by_method = {m: shrink(teacher, [ids], hidden_size=32, method=m).energy_kept for m in ("rotate", "channels")}
    assert by_method["rotate"] > by_method["channels"] + 0.1


def test_the_layer_that_does_nothing_goes_first_by_loss_and_by_angle(ids: Tensor) -> None:
    teacher = make_teacher("Llama")
    architecture = architecture_of(teacher)
    idle = layers_of(teacher, architecture)[1]
    for name in (architecture.attention_out, architecture.mlp_out):
        torch.nn.init.zeros_(idle.get_submodule(name).weight)
    with torch.no_grad():
        text = to_batch(torch.cat([ids, teacher(ids).logits.argmax(-1)], dim=1))  # so that the teacher is missed
    assert layers_by_angle(teacher, architecture, [text], 3, tick=nothing) == (0, 2, 3)
    whole = shrink(teacher, [ids], num_layers=3, rank="angle")
    with torch.no_grad():
        assert torch.allclose(whole.student(ids).logits, teacher(ids).logits, rtol=0, atol=1e-6)
    read: list[int] = []
    layers_by_loss(teacher, architecture, [text], 2, tick=lambda: read.append(1))
    assert len(read) == readings_of_loss(4, 2) == 7


def test_layers_by_loss_are_those_that_a_search_by_hand_finds(ids: Tensor) -> None:
    teacher = make_teacher("GPT2").float()
    architecture, batch = architecture_of(teacher), to_batch(ids)

    def loss(kept: tuple[int, ...]) -> float:
        student = shrink(teacher, [ids], num_layers=4).student
        student.transformer.h = torch.nn.ModuleList([student.transformer.h[i] for i in kept])
        student.config.num_hidden_layers = len(kept)
        with torch.no_grad():
            return float(student(ids, labels=ids, use_cache=False).loss)

    first = min([(1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)], key=loss)
    second = min([tuple(i for i in first if i != out) for out in first], key=loss)
    assert layers_by_loss(teacher, architecture, [batch], 2, tick=nothing) == second


def test_what_heads_and_neurons_write_is_summed_over_real_tokens_only(ids: Tensor) -> None:
    teacher = make_teacher("Llama")
    architecture = architecture_of(teacher)
    layer = layers_of(teacher, architecture)[2]
    inputs: dict[str, Tensor] = {}
    for name in (architecture.attention_out, architecture.mlp_out):
        layer.get_submodule(name).register_forward_pre_hook(lambda _, x, name=name: inputs.update({name: x[0]}))
    mask = torch.ones_like(ids)
    mask[:, 15:] = 0
    batch = to_batch({"input_ids": ids, "attention_mask": mask})
    seen = watch_activity(teacher, architecture, [batch], kept=(0, 1, 2, 3), head_size=8, tick=nothing)
    assert seen.tokens == 6 * 15
    heads = torch.stack(
        [
            (
                inputs[architecture.attention_out][:, :15, 8 * h : 8 * h + 8]
                @ layer.self_attn.o_proj.weight[:, 8 * h : 8 * h + 8].T
            )
            .square()
            .sum()
            for h in range(8)
        ]
    )
    neurons = torch.stack(
        [
            torch.outer(inputs[architecture.mlp_out][:, :15, n].flatten(), layer.mlp.down_proj.weight[:, n])
            .square()
            .sum()
            for n in range(128)
        ]
    )
    assert torch.allclose(seen.heads[2], heads, rtol=1e-4)
    assert torch.allclose(seen.neurons[2], neurons, rtol=1e-4)
    assert seen.covariance.trace() == pytest.approx(9 * 6 * 15 * 64, rel=1e-4)  # nine norms, mean square 1


def test_heads_are_kept_by_whole_groups_and_within_them_by_score() -> None:
    scores = torch.tensor([1.0, 2.0, 9.0, 0.0, 5.0, 6.0])  # three groups of two
    groups, heads = best_heads(scores, groups=2, per_group=1, of=3)
    assert (groups.tolist(), heads.tolist()) == ([1, 2], [2, 5])
    groups, heads = best_heads(scores, groups=1, per_group=2, of=3)
    assert (groups.tolist(), heads.tolist()) == ([2], [4, 5])


def test_sizes_follow_the_teachers_groups() -> None:
    teacher = Widths(hidden=512, groups=2, per_group=4, neurons=1408)
    how = {"head_size": 64, "free_heads": True, "heads": None, "neurons": None}
    assert fit_widths(teacher, hidden=256, **how) == Widths(hidden=256, groups=1, per_group=4, neurons=704)
    assert fit_widths(teacher, hidden=384, **how) == Widths(hidden=384, groups=2, per_group=3, neurons=1056)
    assert fit_widths(teacher, hidden=None, **how) == teacher
    with pytest.raises(ModelError, match="got 5, expected one of 1, 2, 3, 4, 6, 8"):
        fit_widths(teacher, hidden=384, **how | {"heads": 5})
    with pytest.raises(ModelError, match="got 513, expected 1 to 512"):
        fit_widths(teacher, hidden=513, **how)
    with pytest.raises(ModelError, match="got 100, expected multiples of 64"):
        fit_widths(teacher, hidden=100, **how | {"free_heads": False})


def test_what_cannot_be_cut_is_refused_in_one_line(ids: Tensor) -> None:
    bloom = transformers.BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2)
    with pytest.raises(ModelError, match="got bloom, expected one of llama, mistral, qwen2"):
        shrink(transformers.AutoModelForCausalLM.from_config(bloom), [ids], hidden_size=8)
    teacher = make_teacher("Llama")
    with pytest.raises(ModelError, match=r"got LlamaConfig\. Fix: pass the loaded teacher"):
        shrink(teacher.config, [ids], hidden_size=32)
    with pytest.raises(DataError, match="no text to measure activations on"):
        shrink(teacher, [], hidden_size=32)
    with pytest.raises(ConfigError, match="method is unknown; got 'turn', expected rotate or channels"):
        shrink(teacher, [ids], hidden_size=32, method="turn")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="this opt model lacks a module that its family has"):
        shrink(make_teacher("OPT", do_layer_norm_before=False, _remove_final_layer_norm=False), [ids], hidden_size=32)


def test_progress_ends_where_it_said_it_would(ids: Tensor) -> None:
    told: list[tuple[int, int]] = []
    how = {"num_layers": 2, "hidden_size": 32, "rank": "importance"}
    found = shrink(make_teacher("Llama"), [ids, ids], **how, progress=lambda done, total: told.append((done, total)))
    total = told[-1][1]
    assert told == [(done, total) for done in range(total + 1)]
    assert found.tokens == 2 * ids.numel()
