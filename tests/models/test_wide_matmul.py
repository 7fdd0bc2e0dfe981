"""Products over the CPU's full width are float32's, are made where they gain, and leave everything as it was."""

import copy
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.events.records import Notice
from apt_model.models import wide_matmul
from apt_model.models.output_head import find_head, forward_of
from apt_model.models.wide_matmul import full_width
from tests.conftest import Listener
from tests.distill.losses.test_fused import Example, compare
from tests.distill.test_loop import run

LAYERS = {
    "plain": lambda: nn.Linear(24, 40, bias=False),
    "with a bias": lambda: nn.Linear(24, 40),
    "as GPT-2 has them": lambda: Conv1D(40, 24),
}


class Setting:
    """torch's own setting; remembers what it was set to."""

    def __init__(self) -> None:
        self.history: list[str] = []

    @property
    def fp32_precision(self) -> str:
        return str(torch.backends.mkldnn.matmul.fp32_precision)  # type: ignore[attr-defined]

    @fp32_precision.setter
    def fp32_precision(self, value: str) -> None:
        self.history.append(value)
        torch.backends.mkldnn.matmul.fp32_precision = value  # type: ignore[attr-defined]


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Setting:
    """A CPU that gains, if only it is exact, whatever this one is; and every product large enough."""
    if not wide_matmul._is_exact():
        pytest.skip("oneDNN multiplies float32 in less than float32 on this CPU: never used here")
    monkeypatch.setattr(wide_matmul, "gains", lambda: True)
    monkeypatch.setattr(wide_matmul, "LEAST_WORK", 1)
    setting = Setting()
    monkeypatch.setattr(wide_matmul, "PRECISION", setting)
    return setting


def in_float64(layer: nn.Module, inputs: Tensor, outer: Tensor) -> list[Tensor]:
    """Output and gradients, of the input, the weight and the bias if any."""
    exact = copy.deepcopy(layer).double()
    leaf = inputs.detach().double().requires_grad_()
    found = exact(leaf)
    found.backward(outer.double())
    return [found.detach(), leaf.grad, *(p.grad for p in exact.parameters())]  # type: ignore[list-item]


@pytest.mark.parametrize("kind", LAYERS)
def test_a_linear_layer_gives_the_values_and_gradients_of_float64(kind: str, setting: Setting) -> None:
    layer = LAYERS[kind]()
    inputs, outer = torch.randn(3, 7, 24, requires_grad=True), torch.randn(3, 40, 7).transpose(1, 2)
    expected = in_float64(layer, inputs, outer)
    with full_width(layer):
        output = layer(inputs)
        output.backward(outer)
    found = [output.detach(), inputs.grad, *(p.grad for p in layer.parameters())]
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert (one.double() - other).norm() <= 1e-6 * other.norm()
    assert setting.history == ["bf16", "none"] * 2  # forward and backward


@pytest.mark.parametrize("form", [{}, {"bias": True}, {"softcap": 5.0}, {"scale": 0.5}], ids=str)
def test_the_fused_loss_equals_float64(form: dict[str, Any], setting: Setting) -> None:
    example = Example(**form)
    with full_width():
        found = example.fused(2.0)
    found.loss.backward()
    compare(found, example, example.exact(2.0), 1e-5)
    assert setting.history == ["bf16", "none"] * 9  # three chunks: two heads forward, one back


def test_a_student_learns_the_same_with_and_without(
    listener: Listener, make_batches: Callable[..., Any], student: nn.Module, teacher: nn.Module, setting: Setting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    other = copy.deepcopy(student)
    of_the_teacher: list[bool] = []
    block = teacher.model.layers[0].mlp
    hook = block.register_forward_hook(lambda *_: of_the_teacher.append("forward" in vars(block.up_proj)))
    run(listener, student, teacher, make_batches(count=6))
    hook.remove()
    assert of_the_teacher
    assert all(of_the_teacher)
    assert "bf16" in setting.history
    assert not [notice for notice in listener.of(Notice) if notice.key == "notice.head_hidden"]
    monkeypatch.setattr(wide_matmul, "gains", lambda: False)
    setting.history.clear()
    run(Listener(), other, teacher, make_batches(count=6))
    assert setting.history == []
    for one, same in zip(student.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, same, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "recompute",
    [
        lambda layer, x: torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False),
        lambda layer, x: torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=True),
    ],
    ids=["non-reentrant", "reentrant"],
)
def test_recomputed_activations_give_the_same_gradients(recompute: Any, setting: Setting) -> None:
    layer, inputs = nn.Linear(24, 40), torch.randn(5, 24, requires_grad=True)
    expected = in_float64(layer, inputs, torch.ones(5, 40))
    with full_width(layer):
        recompute(layer, inputs).sum().backward()
    for one, other in zip([inputs.grad, layer.weight.grad, layer.bias.grad], expected[1:], strict=True):
        assert one is not None
        assert (one.double() - other).norm() <= 1e-6 * other.norm()
    assert setting.history == ["bf16", "none"] * 3  # forward, forward again, backward


@pytest.mark.parametrize("after", [lambda y: y.clamp_(-1, 1), nn.ReLU(inplace=True), lambda y: y.view(6, -1).mul_(2)])
def test_what_a_layer_puts_out_may_be_changed_in_place(after: Any, setting: Setting) -> None:
    layer, inputs = nn.Linear(24, 40), torch.randn(3, 6, 24)
    after(layer(inputs)).sum().backward()
    expected = [parameter.grad for parameter in layer.parameters()]
    layer.zero_grad()
    with full_width(layer):
        after(layer(inputs)).sum().backward()
    torch.testing.assert_close([parameter.grad for parameter in layer.parameters()], expected)
    assert "bf16" in setting.history


@pytest.mark.parametrize(("trained", "kept"), [("weight", [(18, 24)]), ("inputs", [(40, 24)]), ("nothing", [])])
def test_only_what_a_gradient_needs_is_kept(trained: str, kept: list[tuple[int, ...]], setting: Setting) -> None:
    layer, inputs = nn.Linear(24, 40), torch.randn(3, 6, 24, requires_grad=trained == "inputs")
    layer.requires_grad_(trained == "weight")
    found = []
    with full_width(layer), torch.autograd.graph.saved_tensors_hooks(lambda t: found.append(tuple(t.shape)), print):
        layer(inputs)
    assert found == kept


def test_second_derivatives_and_function_transforms_are_a_plain_layers(setting: Setting) -> None:
    layer, inputs = nn.Linear(24, 40), torch.randn(5, 24, requires_grad=True)

    def penalty() -> Tensor:
        (slope,) = torch.autograd.grad(layer(inputs).pow(2).sum(), inputs, create_graph=True)
        (found,) = torch.autograd.grad(slope.pow(2).sum(), inputs)
        return found

    def slopes() -> Tensor:
        found: Tensor = torch.func.vmap(torch.func.grad(lambda row: layer(row).sum()))(inputs.detach())
        return found

    expected = penalty(), slopes()
    with full_width(layer):
        torch.testing.assert_close((penalty(), slopes()), expected)


def test_a_compiled_layer_inside_the_model_is_compiled_as_it_stands(setting: Setting) -> None:
    layer, inputs = nn.Linear(24, 40), torch.randn(5, 24)
    with full_width(layer):
        layer.compile(backend="eager", fullgraph=True)
        torch.testing.assert_close(layer(inputs), inputs @ layer.weight.t() + layer.bias)
    assert setting.history == []


def test_small_products_half_precision_and_autocast_are_left_to_torch(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = nn.Linear(24, 40)
    with full_width(layer):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(torch.randn(5, 24)).dtype == torch.bfloat16
        assert layer.bfloat16()(torch.randn(5, 24).bfloat16()).dtype == torch.bfloat16
        monkeypatch.setattr(wide_matmul, "LEAST_WORK", 5 * 24 * 40 + 1)
        layer.float()(torch.randn(5, 24))
    assert setting.history == []


def test_models_are_as_they_were_afterwards_even_after_an_error(student: nn.Module, setting: Setting) -> None:
    def kept(inputs: Tensor) -> Tensor:
        return inputs

    def replaced() -> list[str]:
        return [name for name, module in student.named_modules() if "forward" in vars(module)]

    def fail() -> None:
        with full_width(student, None, student, compiled):
            assert vars(foreign)["forward"] is kept  # somebody else's: it stays
            assert len(replaced()) == 8  # q, k, v, o, gate, up, down, and the head
            assert "forward" not in vars(inner)
            student.lm_head(torch.randn(5, 23))

    foreign, inner = student.model.layers[0].mlp.up_proj, nn.Linear(2, 2)
    compiled = torch.compile(inner, backend="eager")
    with forward_of(foreign, kept):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            fail()
        assert "bf16" in setting.history
        assert vars(foreign)["forward"] is kept
    assert replaced() == []
    assert setting.fp32_precision == "none"


def test_a_head_is_still_found_and_bypassed_and_a_copy_stands_on_its_own(student: nn.Module, setting: Setting) -> None:
    ids = torch.randint(3, 50, (2, 7))
    with full_width(student), torch.no_grad():
        whole = student(input_ids=ids).logits
        head = find_head(student)
        assert head is not None
        with head.bypassed() as (seen):
            student(input_ids=ids)
        torch.testing.assert_close(head.logits(seen[0]), whole, rtol=0, atol=0)
        twin = copy.deepcopy(student)
        for parameter in student.parameters():
            parameter.zero_()
        torch.testing.assert_close(twin(input_ids=ids).logits, whole, rtol=0, atol=0)
    setting.history.clear()
    torch.testing.assert_close(twin(input_ids=ids).logits, whole)
    assert setting.history == []  # what outlives the run multiplies as it always did


@pytest.mark.parametrize(
    ("cpu", "capability", "precision", "is_exact", "gains"),
    [
        ("AuthenticAMD", "AVX512", "none", True, True),
        ("AuthenticAMD", "AVX512", "none", False, False),
        ("AuthenticAMD", "AVX512", "tf32", True, False),
        ("AuthenticAMD", "AVX512", "ieee", True, False),
        ("AuthenticAMD", "AVX2", "none", True, False),
        ("GenuineIntel", "AVX512", "none", True, False),
    ],
)
def test_only_an_exact_amd_cpu_with_avx_512_and_nobodys_precision_is_asked(
    cpu: str, capability: str, precision: str, is_exact: bool, gains: bool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "cpuinfo").write_text(f"vendor_id\t: {cpu}\n")
    monkeypatch.setattr(wide_matmul, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(wide_matmul, "_is_exact", lambda: is_exact)
    monkeypatch.setattr(wide_matmul, "gains", wide_matmul.gains.__wrapped__)
    layer = nn.Linear(24, 40)
    torch.backends.mkldnn.matmul.fp32_precision = precision  # type: ignore[attr-defined]
    try:
        with full_width(layer):
            assert ("forward" in vars(layer)) == gains
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"  # type: ignore[attr-defined]


def test_a_lesson_that_begins_while_another_thread_multiplies_does_not_take_the_setting_for_somebodys(
    setting: Setting,
) -> None:
    layer, is_multiplying, may_end = nn.Linear(24, 40), Event(), Event()
    replaced: list[bool] = []

    def multiply() -> None:
        with wide_matmul._onednn():
            is_multiplying.set()
            may_end.wait(10)

    def begin() -> None:
        with full_width(layer):
            replaced.append("forward" in vars(layer))

    threads = Thread(target=multiply), Thread(target=begin)
    threads[0].start()
    assert is_multiplying.wait(10)
    threads[1].start()
    threads[1].join(0.2)  # time enough to look
    may_end.set()
    for thread in threads:
        thread.join(10)
    assert replaced == [True]


def test_a_cache_is_made_with_the_teacher_at_full_width(teacher: nn.Module, tmp_path: Path, setting: Setting) -> None:
    rows = [{"input_ids": [1, 7, 9, 11, 2]}, {"input_ids": [1, 8, 8, 2]}]
    caching = CacheWriter(
        teacher, rows, settings=CacheSettings(k=8, temperature=1.0, value_type="float16", max_length=16, packing=False)
    )
    setting.history.clear()
    caching.run(tmp_path / "cache")
    assert "bf16" in setting.history


def keys_told(listener: Listener) -> list[str]:
    return [notice.key for notice in listener.of(Notice)]


@pytest.fixture
def made_by_onednn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each linear layer's product that goes to oneDNN."""
    made, forward = [], wide_matmul._Linear.forward
    monkeypatch.setattr(
        wide_matmul._Linear, "forward", staticmethod(lambda *given: (made.append(1), forward(*given))[1])
    )
    return made


def test_a_run_tells_once_that_it_uses_onednn_and_not_when_it_is_off(
    listener: Listener, make_batches: Callable[..., Any], student: nn.Module, teacher: nn.Module, setting: Setting,
    made_by_onednn: list[int],
) -> None:  # fmt: skip
    run(listener, copy.deepcopy(student), teacher, make_batches(count=6), num_epochs=2)
    assert keys_told(listener) == ["notice.wide_matmul"]
    assert len(made_by_onednn) >= 12 * (7 * 2 + 7)  # steps, times the layers of teacher and student, heads aside
    setting.history.clear()
    made_by_onednn.clear()
    listener = Listener()
    run(listener, student, teacher, make_batches(count=6), num_epochs=2, wide_matmul="off")
    assert keys_told(listener) == []
    assert made_by_onednn == []
    assert setting.history == []


def test_off_leaves_every_linear_layer_its_own_forward(student: nn.Module, setting: Setting) -> None:
    with full_width(student, setting="off"):
        assert [name for name, module in student.named_modules() if "forward" in vars(module)] == []
        student(input_ids=torch.tensor([[3, 4, 5]]))
        assert not wide_matmul.uses_onednn()
    assert setting.history == []


def test_a_run_whose_products_are_too_small_to_gain_says_nothing_of_them(
    listener: Listener, make_batches: Callable[..., Any], student: nn.Module, teacher: nn.Module, setting: Setting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(wide_matmul, "LEAST_WORK", 2**24)
    run(listener, student, teacher, make_batches(count=2))
    assert keys_told(listener) == []
    assert setting.history == []


def test_a_run_that_takes_no_product_to_onednn_within_another_ones_scope_says_nothing(setting: Setting) -> None:
    layer = nn.Linear(24, 40)
    with full_width(layer):
        layer(torch.randn(5, 24))
        assert wide_matmul.uses_onednn()
        with full_width():
            assert not wide_matmul.uses_onednn()
        assert wide_matmul.uses_onednn()
    assert not wide_matmul.uses_onednn()


def test_a_cache_made_without_onednn_is_the_same_cache(teacher: nn.Module, tmp_path: Path, setting: Setting) -> None:
    rows = [{"input_ids": [1, 7, 9, 11, 2]}, {"input_ids": [1, 8, 8, 2]}]
    settings = CacheSettings(k=8, temperature=1.0, value_type="float16", max_length=16, packing=False)
    CacheWriter(teacher, rows, settings=settings).run(tmp_path / "cache")
    assert "bf16" in setting.history
    setting.history.clear()
    off = CacheWriter(teacher, rows, settings=settings, wide_matmul="off")
    assert not off.uses_onednn
    off.refuse_other(tmp_path / "cache")
    off.run(tmp_path / "another")
    assert setting.history == []


def test_a_cpu_where_digits_are_lost_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_matmul, "_onednn", lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    assert not wide_matmul._is_exact()
