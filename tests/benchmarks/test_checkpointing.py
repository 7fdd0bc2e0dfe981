"""The benchmark of checks and checkpoints still runs, and compares what it says it compares."""

from pathlib import Path

import pytest

from apt_model.distill.grader import Grader
from apt_model.distill.nonfinite import NonFinite
from apt_model.events.runfile import read_events
from benchmarks.micro import checkpointing
from benchmarks.sizes import Size

TINY = Size(vocabulary=64, teacher=(32, 1), student=(32, 1), rows=2, length=8)


def test_every_lesson_takes_every_step_and_only_the_last_keeps_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(checkpointing.SIZES, "S", TINY)
    methods = Grader.check, NonFinite.allows
    seconds = checkpointing.steps_of("S", 4, tmp_path)
    assert {name: len(own) for name, own in seconds.items()} == {"bare": 4, "bare again": 4, "checks": 4, "all": 4}
    assert all(0 < step < 10 for own in seconds.values() for step in own)
    assert [path.name for path in tmp_path.iterdir()] == ["run-S"]
    steps = [event.step for event in read_events(tmp_path / "run-S") if event.kind == "step"]
    assert steps == list(range(1, 5 + checkpointing.WARM_UP))
    assert (Grader.check, NonFinite.allows) == methods
    found = checkpointing.save_of("S", 2, tmp_path / "save")
    assert list(found) == ["MB", "torch.save", "torch.save, fsync", "ours", "of it hashing"]


def test_a_lesson_that_fails_ends_them_all_with_its_error() -> None:
    def lesson(name: str) -> None:
        for batch in turns.batches(name, [1, 2, 3], []):
            if name == "checks" and batch == 2:
                raise ValueError("no disk")

    turns = checkpointing.Turns(checkpointing.LESSONS)
    with pytest.raises(ValueError, match="no disk"):
        turns.run(lesson)


def test_the_interval_holds_the_median_of_equal_ratios() -> None:
    assert checkpointing.interval([1.01] * 9) == "1.0100 (1.0100 to 1.0100)"
