"""Whatever stands in a checkpoint, a record or a batch: an error of ours, or what was written; never another crash."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from apt_model.data.batch import Batch, to_batch
from apt_model.data.encoded import IGNORED
from apt_model.data.notices import untold
from apt_model.errors import DataError, StorageError
from apt_model.events.records import Notice
from apt_model.events.runfile import EVENTS, RunFile, read_events
from apt_model.storage import json_writer, read_json, snapshots, why_damaged, write_snapshot

FILES = ("student.safetensors", "optimizer.safetensors", "generators.safetensors", "state.json", "manifest.json")


class Kept(dict[str, Any]):
    """A run with one checkpoint, as it was written: its directory, all its bytes, the student."""

    def __repr__(self) -> str:
        return "Kept()"  # hypothesis prints a failing test's arguments


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Filled by `resume`."""
    return Kept(directory=tmp_path_factory.mktemp("run"))


@pytest.fixture
def resume(
    checkpoint: dict[str, Any], make_model: Callable[..., Any], teacher: Any, make_batches: Any
) -> Callable[[], dict[str, torch.Tensor]]:
    """A run with a checkpoint after each of its three steps; taking it up gives the student it then has."""
    from apt_model.plugins.distillation_plugin import DistillationPlugin

    directory, rows = checkpoint["directory"], make_batches(count=3)

    def run(begins: bool = False) -> dict[str, torch.Tensor]:
        student = make_model(hidden=16, layers=1, seed=2)
        config = {"seed": 0, "save_steps": 1, "save_total_limit": 9, "learning_rate": 0.01}
        more = {"num_epochs": 1, "device": "cpu", "sinks": [], "run_dir": directory}
        start = None if begins else directory
        DistillationPlugin(config).distill_model(student, teacher, rows, resume_from=start, **more)
        return {key: value.clone() for key, value in student.state_dict().items()}

    if "student" not in checkpoint:
        checkpoint["student"] = run(begins=True)
        for path in snapshots(directory / "checkpoints")[:-1]:
            shutil.rmtree(path)
        checkpoint["bytes"] = {
            path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()
        }
    return run


def put_back(checkpoint: dict[str, Any]) -> Path:
    """The run as it was, undamaged."""
    shutil.rmtree(checkpoint["directory"])
    for path, content in checkpoint["bytes"].items():
        (checkpoint["directory"] / path).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint["directory"] / path).write_bytes(content)
    (newest,) = snapshots(checkpoint["directory"] / "checkpoints")
    return newest


def damaged(content: bytes, start: float, length: int, patch: bytes) -> bytes:
    """`length` bytes from a place on, replaced by others."""
    at = int(start * len(content))
    return content[:at] + patch + content[at + length :]


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(FILES), st.floats(0, 1), st.integers(0, 64), st.binary(max_size=64))
def test_any_damage_to_any_file_is_seen_or_changes_nothing(
    resume: Any, checkpoint: dict[str, Any], name: str, start: float, length: int, patch: bytes
) -> None:
    path = put_back(checkpoint) / name
    content = path.read_bytes()
    path.write_bytes(damaged(content, start, length, patch))
    if why_damaged(path.parent) is None and path.read_bytes() != content:
        assert name == "manifest.json"  # white space in it
        assert json.loads(path.read_bytes()) == json.loads(content)


def with_another(state: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A state whose value at a place is another; None stands for taken away."""
    if not place:
        return value
    key, *rest = place
    holder = dict(enumerate(state)) if isinstance(state, list) else dict(state)
    if rest:
        holder[key] = with_another(holder[key], tuple(rest), value)
    elif value is None:
        del holder[key]
    else:
        holder[key] = value
    return list(holder.values()) if isinstance(state, list) else holder


def seal_again(path: Path, files: dict[str, Any]) -> None:
    """Write a checkpoint whose manifest is right, whatever its files hold."""
    shutil.rmtree(path)
    write_snapshot(path.parent, int(path.name.rpartition("-")[2]), files)


def copier(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


PARTS = [(), ("progress",), ("others",), ("optimizer",), ("optimizer", "groups", 0)]
PARTS += [("ranks", 0), ("ranks", 0, "generators"), ("ranks", 0, "place")]
PARTS += [("others", name) for name in ("schedule", "run", "record")]


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_without_any_entry_of_its_state_nothing_begins_afresh(
    part: tuple[Any, ...], resume: Any, checkpoint: dict[str, Any]
) -> None:
    state = read_json(put_back(checkpoint) / "state.json")
    inside = state
    for key in part:
        inside = inside[key]
    assert inside
    for key in inside:
        path = put_back(checkpoint)
        files = {name: copier((path / name).read_bytes()) for name in FILES[:3]}
        seal_again(path, {**files, "state.json": json_writer(with_another(state, (*part, key), None))})
        with pytest.raises(StorageError) as caught:
            resume()
        assert caught.value.exit_code == 5, key


def one_tensor_less(path: Path) -> Callable[[Path], Any]:
    tensors = load_file(path)
    del tensors[next(iter(tensors))]
    return lambda target: save_file(tensors, target)


@pytest.mark.parametrize("name", ["optimizer.safetensors", "student.safetensors", "generators.safetensors"])
@pytest.mark.parametrize("how", ["gone", "nothing in it", "one tensor less"])
def test_without_a_part_of_its_state_nothing_begins_afresh(
    how: str, name: str, resume: Any, checkpoint: dict[str, Any]
) -> None:
    path = put_back(checkpoint)
    files: dict[str, Any] = {name: copier((path / name).read_bytes()) for name in FILES[:4]}
    if how == "gone":
        del files[name]
    else:
        files[name] = one_tensor_less(path / name) if how != "nothing in it" else lambda to: save_file({}, to)
    seal_again(path, files)
    assert why_damaged(path) is None
    with pytest.raises(StorageError) as caught:
        resume()
    assert caught.value.exit_code == 5


def test_undamaged_it_is_taken_up(resume: Any, checkpoint: dict[str, Any]) -> None:
    put_back(checkpoint)
    student = resume()
    assert all(torch.equal(student[key], checkpoint["student"][key]) for key in student)


@pytest.mark.parametrize(("key", "value"), [("step", 10**13), ("step", -1), ("epoch", 10**15), ("batches", 1.5)])
def test_an_absurd_number_in_the_state_is_refused(
    key: str, value: Any, resume: Any, checkpoint: dict[str, Any]
) -> None:
    path = put_back(checkpoint)
    state = read_json(path / "state.json")
    state["progress"][key] = value
    files = {name: copier((path / name).read_bytes()) for name in FILES[:3]}
    seal_again(path, {**files, "state.json": json_writer(state)})
    with pytest.raises(StorageError, match=f"{key} is {value}") as caught:
        resume()
    assert caught.value.exit_code == 5


@settings(max_examples=500)
@given(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=40))
def test_a_damaged_record_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, start: float, length: int, patch: bytes
) -> None:
    directory = tmp_path_factory.getbasetemp() / "damaged-record"
    if not (directory / "whole").exists():
        record = RunFile(directory / "made")
        for step in range(3):
            record.emit(Notice(run_id="r", step=step, key="notice.resumed", values={"from": "互联网"}))
        record.close()
        (directory / "whole").write_bytes((directory / "made" / EVENTS).read_bytes())
    path = directory / EVENTS
    path.write_bytes(damaged((directory / "whole").read_bytes(), start, length, patch))
    with suppress(DataError):
        list(read_events(path))


numbers = st.integers(-(2**63), 2**63 - 1)
tensors = st.builds(
    lambda shape, kind, fill: torch.full(shape, fill).to(kind),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([torch.int64, torch.int32, torch.uint8, torch.float32, torch.bool, torch.complex64]),
    st.integers(-5, 100),
)
leaves = st.none() | st.booleans() | numbers | st.floats() | st.text(max_size=4) | st.binary(max_size=3) | tensors
beside = ["position_ids", "completion_mask", "assistant_masks", "seq_lengths", "seq_idx", "cu_seq_lens_q", "tools"]
names = st.sampled_from(
    ["input_ids", "attention_mask", "labels", *beside, "text", "messages", "prompt", "completion", "other"]
)
raw_batches = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner, inner) | st.dictionaries(names, inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=1000, suppress_health_check=list(HealthCheck))
@given(raw_batches)
def test_whatever_a_loader_yields_is_a_batch_or_a_data_error(chatty: Any, raw: Any) -> None:
    made = None
    with suppress(DataError):
        made = to_batch(raw, tokenizer=chatty, max_length=8, tell=untold)
    if made is not None:
        assert isinstance(made, Batch)
        assert made.input_ids.shape == made.attention_mask.shape == made.labels.shape
        assert made.input_ids.ndim == 2
        assert made.label_count <= int((made.labels != IGNORED).sum())
