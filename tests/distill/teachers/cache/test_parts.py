"""A cache written in parts, by any number of processes and to any store, has the bytes that one process writes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from apt_model.data.batch import Batch, learned_positions, to_batch
from apt_model.distill.teachers.cache import index, sorting, writer
from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.parts import Part, parse_part
from apt_model.distill.teachers.cache.sorting import BucketSort, as_records
from apt_model.distill.teachers.cache.topk import from_log_probs
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.distill.teachers.cached import CachedTeacher
from apt_model.errors import ConfigError, DataError, ModelError, NumericError, StorageError
from apt_model.events.records import ModelCard

SETTINGS = CacheSettings(k=8, temperature=1.0, value_type="float16", max_length=32, packing=False)
ROWS = [
    {"input_ids": torch.randint(4, 64, (length,), generator=torch.Generator().manual_seed(number)).tolist()}
    for number, length in enumerate([5, 9, 3, 12, 7, 9, 4, 11, 6, 8, 5, 10])
]

WORKER = [sys.executable, "-m", "tests.distill.teachers.cache.worker"]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SHARD_POSITIONS", 10)
    monkeypatch.setattr(writer, "BLOCK_POSITIONS", 8)


def caching(teacher: Any, rows: Any = ROWS, **settings: Any) -> CacheWriter:
    return CacheWriter(teacher, rows, settings=SETTINGS.model_copy(update=settings), batch_size=3)


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_parts_in_any_order_make_the_bytes_of_one_process_and_the_last_one_finishes(
    teacher: Any, tmp_path: Path
) -> None:
    assert caching(teacher).run(tmp_path / "whole") == 0
    whole = files(tmp_path / "whole")
    shards = {name for name in whole if name.startswith("shard-")}
    assert len(shards) >= 6
    missing = [caching(teacher).run(tmp_path / "parts", part=Part(number, 3)) for number in (3, 1)]
    assert len(shards) > missing[0] > missing[1] > 0
    with pytest.raises(DataError, match="is not finished"):
        CachedTeacher(tmp_path / "parts")
    assert caching(teacher).run(tmp_path / "parts", part=Part(2, 3)) == 0
    assert files(tmp_path / "parts") == whole


def test_a_part_of_another_teacher_data_or_setting_is_refused_by_name(
    teacher: Any, make_model: Callable[..., Any], tmp_path: Path
) -> None:
    caching(teacher).run(tmp_path, part=Part(1, 2))
    before = files(tmp_path)
    for other, words in (
        (caching(make_model(seed=9)), "another teacher"),
        (caching(teacher, ROWS[1:]), "other data"),
        (caching(teacher, k=4), "k 8 instead of 4"),
    ):
        with pytest.raises(DataError, match=rf"already holds another cache; got {words}"):
            other.run(tmp_path, part=Part(2, 2))
    assert files(tmp_path) == before


def test_a_shard_of_another_cache_is_not_merged_and_its_part_writes_it_again(
    teacher: Any, make_model: Callable[..., Any], tmp_path: Path
) -> None:
    for name, one in (("good", teacher), ("other", make_model(seed=9))):
        caching(one).run(tmp_path / name)
    good, at = files(tmp_path / "good"), tmp_path / "good" / "shard-000001.safetensors"
    at.write_bytes((tmp_path / "other" / at.name).read_bytes())
    cached = CachedTeacher(tmp_path / "good")
    with pytest.raises(StorageError, match="damaged; got shard-000001"):
        cached.top_rows(to_batch(ROWS))
    (tmp_path / "good" / "manifest.json").unlink()
    with pytest.raises(StorageError, match=r"shard-000001.safetensors is damaged, or a shard of another cache"):
        caching(teacher).run(tmp_path / "good", part=Part(1, 2))  # which writes shards 0, 2, 4 …
    assert caching(teacher).run(tmp_path / "good", part=Part(2, 2)) == 0
    assert files(tmp_path / "good") == good


def test_a_cache_in_a_store_of_objects_has_the_same_bytes_and_answers(teacher: Any, tmp_path: Path) -> None:
    caching(teacher).run(f"file://{tmp_path}/here")
    url, memory = "memory://apt-model-test/cache", fsspec.filesystem("memory")
    try:
        for number in (1, 2):
            caching(teacher).run(url, part=Part(number, 2))
        there = {path.removeprefix("/apt-model-test/cache/"): memory.cat_file(path) for path in memory.find(url[9:])}
        assert there == files(tmp_path / "here")
        ours, same = CachedTeacher(url), CachedTeacher(tmp_path / "here")
        for one, other in zip(ours.top_rows(to_batch(ROWS)), same.top_rows(to_batch(ROWS)), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
        assert ours.load_config()[0].hidden_size == teacher.config.hidden_size
        memory.pipe_file(f"{url[8:]}/shard-000002.safetensors", b"")
        with pytest.raises(StorageError, match="damaged; got shard-000002"):
            ours.top_rows(to_batch(ROWS))
    finally:
        memory.rm("/apt-model-test", recursive=True)


def test_a_url_that_cannot_be_opened_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"nonsense://x cannot be opened"):
        CachedTeacher("nonsense://x")


def test_a_cache_of_an_older_version_is_refused_in_one_line(teacher: Any, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"identity": {"schema_version": 1}, "shards": []}))
    for use in (CachedTeacher, caching(teacher).run):
        with pytest.raises(DataError, match=r"made by an older version; got schema 1, expected schema 2\. Fix: cache"):
            use(tmp_path)


def test_a_shard_has_no_more_bytes_than_are_made_in_memory(
    teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SHARD_POSITIONS", 10_000)
    monkeypatch.setattr(writer, "SHARD_BYTES", 28 * 20)  # 8 ids of 1 byte, 8 values of 2, tails of 4
    caching(teacher).run(tmp_path)
    tables = [load_file(file) for file in sorted(tmp_path.glob("shard-*"))]
    positions = {len(row["input_ids"]) - 1 for row in ROWS}
    assert len(tables) == -(-sum(len(row["input_ids"]) - 1 for row in ROWS) // 20)
    assert max(len(table["keys"]) for table in tables) * min(positions) <= 20 + max(positions)


def test_many_rows_are_found_in_an_index_of_many_files(
    teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caching(teacher).run(tmp_path / "one")
    monkeypatch.setattr(index, "FILE_ROWS", 3)
    monkeypatch.setattr(sorting, "AT_ONCE", 4)
    caching(teacher).run(tmp_path / "many")
    assert len(list((tmp_path / "many").glob("index-*"))) >= 3
    one, many = CachedTeacher(tmp_path / "one"), CachedTeacher(tmp_path / "many")
    many.check(to_batch(ROWS))
    for ours, other in zip(many.top_rows(to_batch(ROWS)), one.top_rows(to_batch(ROWS)), strict=True):
        torch.testing.assert_close(ours, other, rtol=0, atol=0)
    with pytest.raises(DataError, match="1 of 1 rows are not in cache"):
        many.check(to_batch([{"input_ids": [9, 9, 9]}]))


def test_records_come_sorted_and_equal_keys_in_the_order_they_were_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "AT_ONCE", 100)
    draw = np.random.default_rng(3)
    keys = draw.integers(0, 2**64, (1_000, 2), np.uint64)
    keys[500:] = keys[:500]
    by_key = BucketSort([("at", np.int64)])
    for start in range(0, 1_000, 70):
        by_key.add(as_records(keys[start : start + 70], {"at": np.arange(start, min(start + 70, 1_000))}))
    got = [(int(one["high"]), int(one["low"]), int(one["at"])) for bucket in by_key for one in bucket]
    assert got == sorted((int(high), int(low), at) for at, (high, low) in enumerate(keys))


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "-1/2", "1/2/3", ""])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="part is not one of n"):
        parse_part(text)


def test_the_ranks_of_a_launcher_share_a_part() -> None:
    part = parse_part("2/3")
    shares = [part.of(rank, 2) for rank in range(2)]
    assert [[shard for shard in range(12) if share.has(shard)] for share in shares] == [[1, 7], [4, 10]]
    assert parse_part("1/1").of(0, 1) == Part(1, 1)


class Spoken:
    """A source of log-probabilities: a model's, as a server would give them."""

    card, fingerprint, config, generation_config = (
        ModelCard(name="spoken", parameters=0, megabytes=0.0),
        "ab" * 32,
        None,
        None,
    )

    def __init__(self, model: Any, more: int = 0) -> None:
        self._model, self._more = model, more

    def check(self, batch: Batch) -> None:
        """Any row will do."""

    def begin(self, batch: Batch) -> None:
        """Nothing to try."""

    @torch.no_grad()
    def answers(self, batches: Any, *, k: int, temperature: float) -> Iterator[Any]:
        for batch in batches:
            logits = self._model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.flatten(0, 1)
            top = logits.log_softmax(-1)[learned_positions(batch.labels)].topk(k)
            end = len(top.indices) + min(self._more, 0)
            yield from_log_probs(top.indices.numpy()[:end], top.values.numpy()[:end], vocabulary=64)
            if self._more > 0:
                yield from_log_probs(top.indices.numpy()[:1], top.values.numpy()[:1], vocabulary=64)


def test_log_probabilities_of_a_server_are_cached_as_a_models_logits_are(teacher: Any, tmp_path: Path) -> None:
    assert CacheWriter(Spoken(teacher), ROWS, settings=SETTINGS, batch_size=3).run(tmp_path / "served") == 0
    caching(teacher).run(tmp_path / "live")
    served, live = (CachedTeacher(tmp_path / name).top_rows(to_batch(ROWS)) for name in ("served", "live"))
    assert torch.equal(served.ids, live.ids)
    for one, other in zip(served[1:], live[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("more", "words"), [(1, "too many"), (-1, "too few")])
def test_a_source_that_answers_another_number_of_positions_is_refused(
    more: int, words: str, teacher: Any, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=f"answered {words} positions"):
        CacheWriter(Spoken(teacher, more), ROWS, settings=SETTINGS).run(tmp_path)
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("wrong", [[0.0, -0.1], [-1.0, -0.5], [float("nan"), -1.0], [0.5, -9.0]])
def test_log_probabilities_that_cannot_be_right_are_refused(wrong: list[float]) -> None:
    with pytest.raises(NumericError, match="cannot be right; got"):
        from_log_probs(np.array([[3, 4]]), np.array([wrong], np.float32), vocabulary=64)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_four_processes_at_once_one_killed_and_resumed_make_the_bytes_of_one(teacher: Any, tmp_path: Path) -> None:
    teacher.save_pretrained(tmp_path / "teacher")
    draw = random.Random(19)

    def start(out: str, part: str, pause: float) -> subprocess.Popen[bytes]:
        where = [str(tmp_path / "teacher"), str(tmp_path / out)]
        return subprocess.Popen([*WORKER, *where, part, str(pause), "100", "400"], stdout=subprocess.PIPE)

    whole = start("whole", "1/1", 0)
    assert whole.communicate()[0] == b"ready\n"
    assert whole.returncode == 0
    for trial in range(2):
        out, victim = f"parts{trial}", draw.randrange(4)
        running = [start(out, f"{number}/4", 0.01) for number in range(1, 5)]
        assert running[victim].stdout.readline() == b"ready\n"  # type: ignore[union-attr]
        time.sleep(draw.uniform(0, 0.5))
        os.kill(running[victim].pid, signal.SIGKILL)
        for process in running:
            process.communicate()
        codes = [process.returncode for process in running]
        assert codes == [-9 if number == victim else 0 for number in range(4)], codes
        assert not (tmp_path / out / "manifest.json").exists()
        again = start(out, f"{victim + 1}/4", 0)
        again.communicate()
        assert again.returncode == 0
        assert files(tmp_path / out) == files(tmp_path / "whole")
