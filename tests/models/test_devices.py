"""Teachers in other numbers and other places: half precision, quantized, on a device of their own."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from apt_model.cli import main
from apt_model.data.batch import Batch
from apt_model.distill.losses.reference import distillation_sums
from apt_model.distill.students.fresh import create_compressed_model
from apt_model.distill.teachers.live import LiveTeacher
from apt_model.errors import ConfigError, DeviceError, ModelError
from apt_model.events.records import RunStarted, StepDone
from apt_model.models.pretrained import load_model, save_model
from apt_model.plugins.distillation_plugin import DistillationPlugin
from tests.conftest import Listener

BATCHES = [torch.randint(4, 60, (4, 8), generator=torch.Generator().manual_seed(n)) for n in range(4)]
ELSEWHERE = torch.device("cpu", 0)  # another device to torch, and the same chip: what is moved is really moved


def taught(student: Any, teacher: Any, *sinks: Any, **settings: Any) -> None:
    fixed = {"learning_rate": 1e-2, "temperature": 2.0, "seed": 0}
    plugin = DistillationPlugin({**fixed, **settings})
    plugin.distill_model(student, teacher, BATCHES, num_epochs=2, device="cpu", sinks=list(sinks))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hides_head", [False, True])
def test_a_teacher_in_half_precision_teaches_a_student_in_float32(
    dtype: torch.dtype, hides_head: bool, make_model: Callable[..., Any], teacher: Any, listener: Listener
) -> None:
    student, same = (make_model(hidden=16, layers=1, seed=2) for _ in range(2))
    teacher = teacher.to(dtype)
    with torch.no_grad():
        logits = [model(input_ids=BATCHES[0]).logits.float() for model in (same, teacher)]
    kd, ce = (float(part) / 28 for part in distillation_sums(*logits, BATCHES[0], temperature=2.0))
    if hides_head:
        teacher.lm_head.register_forward_hook(lambda *_: None)
    taught(student, teacher, listener, max_steps=1)
    (step,) = listener.of(StepDone)
    assert step.kd == pytest.approx(kd, rel=0.02)  # the head's product is in half precision
    assert step.ce == pytest.approx(ce, rel=1e-4)
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    assert {p.dtype for p in teacher.parameters()} == {dtype}


@pytest.mark.parametrize("hides_head", [False, True])
def test_a_teacher_on_another_device_teaches_the_same(
    hides_head: bool, make_model: Callable[..., Any], teacher: Any
) -> None:
    if hides_head:
        teacher.lm_head.register_forward_hook(lambda *_: None)
    one, two = (make_model(hidden=16, layers=1, seed=2) for _ in range(2))
    taught(one, teacher)
    taught(two, teacher, teacher_device="cpu:0")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_what_is_said_elsewhere_comes_to_the_students_device(teacher: Any) -> None:
    live = LiveTeacher(teacher, torch.device("meta"), ELSEWHERE)
    batch = Batch(input_ids=BATCHES[0], attention_mask=torch.ones_like(BATCHES[0]), labels=BATCHES[0])
    assert live.logits(batch).logits.device.type == "meta"
    how: dict[str, Any] = {"temperature": 1.0, "columns": 64, "dtype": None}
    signal = live.signal(batch, torch.tensor([0, 3]), **how)
    signal.begin(0, 2)
    block = signal.block(0, 2)
    assert isinstance(block, torch.Tensor)
    assert block.device.type == "meta"
    assert {p.device.type for p in teacher.parameters()} == {"cpu"}


def test_a_teacher_that_may_not_be_moved_stays(teacher: Any, student: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("`.to` is not supported")

    teacher.is_quantized, teacher.to = True, refuse
    taught(student, teacher, max_steps=1)


def test_a_device_that_is_not_there_is_refused(teacher: Any, student: Any) -> None:
    with pytest.raises(DeviceError, match="this machine has no xpu"):
        taught(student, teacher, teacher_device="xpu")


def test_a_quantized_teacher_has_no_weights_to_copy(teacher: Any) -> None:
    teacher.is_quantized = True
    assert create_compressed_model(teacher, num_layers=1) is not None
    with pytest.raises(ModelError, match="a quantized teacher has no weights to copy"):
        create_compressed_model(teacher, num_layers=1, init="teacher")


@pytest.fixture
def saved(teacher: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_model(teacher.to(torch.bfloat16), tokenizer, "teacher")
    Path("text.txt").write_text("the network, is large\n人工智能医疗\n" * 4, encoding="utf-8")
    return tmp_path / "teacher"


def test_weights_are_read_as_they_are_asked_for(saved: Path) -> None:
    for dtype, expected in ((torch.float32, torch.float32), (torch.float16, torch.float16), ("auto", torch.bfloat16)):
        model, _, _ = load_model(saved, dtype=dtype)  # type: ignore[arg-type]
        assert {p.dtype for p in model.parameters()} == {expected}


@pytest.mark.parametrize(
    ("flag", "size"), [([], 4), (["--teacher-dtype", "bf16"], 2), (["--teacher-dtype", "auto"], 2)]
)
def test_the_command_line_says_in_which_numbers_the_teacher_answers(
    flag: list[str], size: int, saved: Path, capsys: Any
) -> None:
    fixed = ["distill", "--teacher", "teacher", "--student", "layers=1,hidden=16", "--data", "text.txt"]
    how = ["--device", "cpu", "--max-steps", "2", "--teacher-device", "cpu:0", "--out", "run", "--plain"]
    assert main([*fixed, *how, *flag]) == 0
    (start,) = [json.loads(line) for line in Path("run/events.jsonl").read_text().splitlines()[:1]]
    assert start["kind"] == RunStarted.kind
    assert start["teacher"]["megabytes"] * 2**20 == pytest.approx(size * start["teacher"]["parameters"], rel=0.01)
    assert start["student"]["megabytes"] * 2**20 == pytest.approx(4 * start["student"]["parameters"], rel=0.01)


def test_a_missing_package_for_quantizing_is_named(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apt_model.models.pretrained.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="bnb-8bit needs the bitsandbytes package"):
        load_model(saved, quantization="bnb-8bit")


def test_a_model_that_is_quantized_already_goes_to_transformers_by_its_own_config(saved: Path) -> None:
    assert find_spec("gptqmodel") is None, "with it, the model is read: change this test"
    config = json.loads((saved / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"needs a package that is not installed; got .*[Gg][Pp][Tt][Qq]"):
        load_model(saved)


@pytest.mark.parametrize(("kind", "most_kl", "share"), [("bnb-8bit", 0.01, 0.75), ("bnb-4bit", 0.5, 0.7)])
def test_bitsandbytes_quantizes_a_teacher_while_it_is_read(
    kind: Any, most_kl: float, share: float, make_model: Callable[..., Any], tmp_path: Path, listener: Listener
) -> None:
    pytest.importorskip("bitsandbytes")
    plain = make_model(hidden=64, layers=2, seed=1)
    save_model(plain, None, tmp_path / "plain")
    small, _, _ = load_model(tmp_path / "plain", quantization=kind)
    assert sum(p.nbytes for p in small.parameters()) < share * sum(p.nbytes for p in plain.parameters())
    with torch.no_grad():
        p, q = (model(input_ids=BATCHES[0]).logits.float().log_softmax(-1) for model in (plain, small))
    assert float((p.exp() * (p - q)).sum(-1).mean()) < most_kl
    taught(make_model(hidden=16, layers=1, seed=2), small, listener, alpha=1.0)
    assert listener.of(StepDone)[-1].kd < listener.of(StepDone)[0].kd
