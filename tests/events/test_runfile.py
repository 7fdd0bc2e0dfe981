"""A run that resumes never empties, and never cuts, a record that it did not write."""

from pathlib import Path

import pytest

from apt_model.events.records import Notice
from apt_model.events.runfile import EVENTS, RunFile


def noticed(directory: Path, *, resumes: bool = False, begins_anew: bool = False) -> RunFile:
    record = RunFile(directory, resumes=resumes, begins_anew=begins_anew)
    record.emit(Notice(run_id=directory.name, step=0, key="notice.one", values={}))
    return record


def test_without_a_checkpoint_the_record_of_the_first_attempt_is_kept(tmp_path: Path) -> None:
    noticed(tmp_path).close()
    before = (tmp_path / EVENTS).read_bytes()
    for number in (1, 2):
        record = noticed(tmp_path, resumes=True, begins_anew=True)
        assert record.kept == tmp_path / f"events-before-{number}.jsonl"
        assert record.kept.read_bytes().count(b"\n") == before.count(b"\n") == 1
        assert (tmp_path / EVENTS).read_bytes().count(b"\n") == 1
        record.close()


def test_a_record_that_another_run_wrote_is_not_cut_to_a_checkpoints_length(tmp_path: Path) -> None:
    own = noticed(tmp_path / "own")
    state = own.state_dict()
    other = noticed(tmp_path / "other")
    other.emit(Notice(run_id="other", step=0, key="notice.more", values={}))
    there = (tmp_path / "other" / EVENTS).read_bytes()
    with pytest.raises(ValueError, match="another run's"):
        other.load_state_dict(state)
    assert (tmp_path / "other" / EVENTS).read_bytes() == there
    own.load_state_dict(state)
    own.close()
    other.close()
