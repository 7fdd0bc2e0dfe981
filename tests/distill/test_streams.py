"""A run on a stream goes on where the stream was: to the same bytes, and where that is exact without what was read."""

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from apt_model import DistillationPlugin
from apt_model.cli import main as apt_model
from apt_model.data import dataset, opening, readers
from apt_model.distill.optimizer_step import OptimizerStep
from apt_model.errors import ConfigError, Interrupted
from apt_model.models.pretrained import save_model
from tests.chats import byte_level, small_llama
from tests.distill import lost_ranks, streams
from tests.distill.test_processes import taught
from tests.distill.worlds import model, send_at

ROWS = 26
NEEDS_TORCHDATA = pytest.mark.skipif(importlib.util.find_spec("torchdata") is None, reason="torchdata is not installed")


class Listening:
    """A sink that stops the run after a step, and keeps what is told of the stream."""

    def __init__(self, stops: int) -> None:
        self._stops = stops
        self.told: list[str] = []

    def emit(self, event: Any) -> None:
        if event.kind == "step" and event.step == self._stops:
            os.kill(os.getpid(), signal.SIGTERM)
        if event.kind == "notice" and "stream" in event.key:
            self.told.append(event.key)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in (
        (dataset, "SHUFFLED_TOGETHER"),
        (opening, "PART"),
        (readers, "LINES"),
        (readers, "EACH_A_ROW"),
        (streams.Json, "_generate_tables"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # set back afterwards
    streams.count_rows()


def lesson(run: Path, data: Any, stops: int = 0) -> tuple[str, int, list[str]]:
    """Two epochs, three batches to a step, begun or resumed: the student's hash, rows read, what was told."""
    streams.READ[0], heard, student = 0, Listening(stops), model(2, 16, 0.1)
    config = {"seed": 0, "learning_rate": 0.01, "lang": "en", "save_steps": 2, "gradient_accumulation_steps": 3}
    with (
        contextlib.suppress(Interrupted) if stops else contextlib.nullcontext(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        DistillationPlugin(config).distill_model(
            student,
            model(1, 32),
            data,
            num_epochs=2,
            device="cpu",
            run_dir=run,
            resume_from=run if run.exists() else None,
            sinks=[heard],
        )
    weights = b"".join(one.detach().numpy().tobytes() for one in student.parameters())
    return hashlib.sha256(weights).hexdigest(), streams.READ[0], heard.told


def resumed(tmp_path: Path, kind: str, stops: int) -> tuple[bool, int, list[str]]:
    """Whether a run that was stopped ends as the one that was not; the rows that its resumption read; what it told."""

    def data() -> Any:
        return streams.STREAMS[kind](tmp_path, ROWS)

    whole, _, _ = lesson(tmp_path / "whole", data())
    lesson(tmp_path / "cut", data(), stops)
    again, read, told = lesson(tmp_path / "cut", data())
    return again == whole, read, told


# Of 26 rows in 13 batches, two epochs in 10 steps, the last step is left: one batch, and the one before it. A stream of
# `datasets` also reads the shards again that these are in, and the one before: of six, with four or five rows each.
@pytest.mark.parametrize(("kind", "most"), [("own loader", 4), ("hub", 14)])
def test_a_stream_with_a_place_of_its_own_is_not_read_again(tmp_path: Path, kind: str, most: int) -> None:
    is_same, read, told = resumed(tmp_path, kind, 9)
    assert is_same
    assert read <= most
    assert told == []


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("hub shuffled", "notice.stream_shuffled"),
        pytest.param("hub thinned", "notice.stream_function", marks=pytest.mark.slow),
        pytest.param("hub, a worker", "notice.stream_workers", marks=pytest.mark.slow),
    ],
)
def test_a_stream_whose_place_is_not_exact_is_read_again_and_it_is_told_why(
    tmp_path: Path, kind: str, why: str
) -> None:
    is_same, read, told = resumed(tmp_path, kind, 3)
    assert is_same
    assert told == [why]
    assert read >= (0 if "worker" in kind else 2 * ROWS)


def test_a_file_of_a_stream_that_was_changed_before_its_place_is_still_noticed(tmp_path: Path) -> None:
    def data() -> Any:
        return streams.STREAMS["files in order"](tmp_path, ROWS)

    lesson(tmp_path / "cut", data(), 3)
    first = tmp_path / "0.jsonl"
    lines = first.read_text().splitlines()
    first.write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    with pytest.raises(ConfigError, match="the epoch's first 9 batches differ"):
        lesson(tmp_path / "cut", data())


@pytest.mark.slow
def test_a_place_that_leads_to_other_rows_is_not_gone_on_from(tmp_path: Path) -> None:
    class Forgetful(streams.Own):
        """Its place is beside where it is."""

        def load_state_dict(self, state: Any) -> None:
            super().load_state_dict({**state, "at": max(0, state["at"] - 1)})

    whole, _, _ = lesson(tmp_path / "whole", DataLoader(Forgetful(ROWS), 2))
    lesson(tmp_path / "cut", DataLoader(Forgetful(ROWS), 2), 3)
    again, _, told = lesson(tmp_path / "cut", DataLoader(Forgetful(ROWS), 2))
    assert again == whole
    assert told == ["notice.stream_other"]


def test_a_number_with_a_fraction_that_a_data_set_changes_is_resumed_with(tmp_path: Path) -> None:
    class Cooling(streams.Own):
        def __init__(self, rows: int) -> None:
            super().__init__(rows)
            self.heat = 1.0

        def __iter__(self) -> Any:
            for one in super().__iter__():
                self.heat = self.heat * 0.75
                yield (one + int(40 * self.heat)) % 64

    whole, _, _ = lesson(tmp_path / "whole", DataLoader(Cooling(20), 2))
    lesson(tmp_path / "cut", DataLoader(Cooling(20), 2), 3)
    assert lesson(tmp_path / "cut", DataLoader(Cooling(20), 2))[0] == whole


def command(folder: Path, run: Path, *more: str) -> tuple[int, int, bytes]:
    """`apt-model distill --streaming` on 400 lines: the exit code, rows read, the student."""
    if not (folder / "texts.jsonl").exists():
        save_model(small_llama(1, hidden=16, layers=2), byte_level(), folder / "teacher")
        lines = [json.dumps({"text": f"the river number {turn} rises"}) + "\n" for turn in range(400)]
        (folder / "texts.jsonl").write_text("".join(lines))
    streams.READ[0] = 0
    models = ["--teacher", str(folder / "teacher"), "--student", "layers=1,hidden=8,heads=2"]
    how = ["--streaming", "--batch-size", "4", "--num-epochs", "1", "--plain", "--no-doctor", "--device", "cpu"]
    data = ["--data", str(folder / "texts.jsonl"), "--out", str(run), "--save-steps", "20", "--max-length", "16"]
    code = apt_model(["distill", *models, *data, *how, "--validation-split", "0", "--lang", "en", *more])
    student = run / "student" / "model.safetensors"
    return code, streams.READ[0], student.read_bytes() if student.exists() else b""


def test_a_streaming_command_goes_on_without_what_it_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streams.count_rows(block=20, part=430)
    whole = command(tmp_path, tmp_path / "whole")
    monkeypatch.setattr(OptimizerStep, "take", OptimizerStep.take)
    send_at(signal.SIGTERM, 99)
    assert command(tmp_path, tmp_path / "cut")[0] == 143
    code, read, student = command(tmp_path, tmp_path / "cut", "--resume")
    assert (code, student) == (0, whole[2])
    # All look at 100 lines for columns and at 64 for a new student's sizes. Then the block, and ten open parts of ten.
    assert whole[1] >= 100 + 64 + 400
    assert read <= 100 + 64 + 1 + 20 + 10 * 10 + 4


@pytest.mark.slow
@pytest.mark.parametrize("stops", [1, 2, 4, 5, 6, 8, 9])
@pytest.mark.parametrize(
    "kind",
    [pytest.param(one, marks=NEEDS_TORCHDATA if one.startswith("stateful") else ()) for one in streams.STREAMS],
)
def test_every_kind_of_stream_goes_on_to_the_same_bytes_from_anywhere(tmp_path: Path, kind: str, stops: int) -> None:
    assert resumed(tmp_path, kind, stops)[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["files", "hub", "own"])
def test_each_of_two_ranks_goes_on_in_its_stream_without_what_came_before(tmp_path: Path, kind: str) -> None:
    asked = {"data": kind, "rows": 600, "files": str(tmp_path), "dropout": 0.1, "epochs": 1, "counts": True}
    asked["settings"] = {"save_steps": 3, "gradient_accumulation_steps": 2}
    whole = taught(2, {**asked, "run": str(tmp_path / "whole")}, tmp_path / "w")
    cut = {**asked, "run": str(tmp_path / "cut")}
    taught(2, {**cut, "signals": {"SIGKILL": [1, 73]}}, tmp_path / "c", code=1)
    assert taught(2, {**cut, "resume": True}, tmp_path / "c") == whole
    few = {"files": 720, "hub": 320, "own": 40}[kind]  # 606 of the first are looked at before a run begins
    assert all(int((tmp_path / f"c-{rank}").read_text()) <= few for rank in range(2))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "ranks"), [("files", 1), ("hub", 1), ("hub batched", 1), ("own", 1), ("files", 2)])
def test_runs_on_streams_killed_at_drawn_moments_lose_nothing(tmp_path: Path, kind: str, ranks: int) -> None:
    assert lost_ranks.main(tmp_path, 8, 19, ranks, data=kind, rows=200, files=str(tmp_path / "files")) == 0
