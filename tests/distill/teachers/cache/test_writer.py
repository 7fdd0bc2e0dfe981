"""A teacher is cached once; what is looked up later is what it said."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file

from apt_model.data.batch import Batch, to_batch
from apt_model.data.encoded import IGNORED
from apt_model.distill.losses.reference import token_kl
from apt_model.distill.losses.topk_logits import sparse_token_kl
from apt_model.distill.teachers.cache import store, writer
from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.distill.teachers.cached import CachedTeacher
from apt_model.errors import ConfigError, DataError, NumericError, StorageError
from apt_model.models.fingerprints import text_keys

VOCABULARY = 64
SETTINGS = CacheSettings(k=8, temperature=2.0, value_type="float16", max_length=32, packing=False)
MakeModel = Callable[..., Any]

WORKER = [sys.executable, "-m", "tests.distill.teachers.cache.worker"]


@pytest.fixture
def rows() -> list[dict[str, list[int]]]:
    """Rows of different lengths; some tokens are given only, one row twice, one with nothing to learn."""
    generator = torch.Generator().manual_seed(5)
    made = []
    for length in (5, 9, 3, 12, 7, 9, 4):
        ids = torch.randint(4, VOCABULARY, (length,), generator=generator).tolist()
        made.append({"input_ids": ids, "labels": [IGNORED, IGNORED, *ids[2:]]})
    return [*made, made[1], {"input_ids": [5, 6], "labels": [IGNORED, IGNORED]}]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SHARD_POSITIONS", 10)
    monkeypatch.setattr(writer, "BLOCK_POSITIONS", 8)


def cache(teacher: Any, rows: Any, path: Path, **settings: Any) -> CachedTeacher:
    CacheWriter(teacher, rows, settings=SETTINGS.model_copy(update=settings), batch_size=3).run(path)
    return CachedTeacher(path)


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@torch.no_grad()
def said_by(teacher: Any, batch: Batch) -> torch.Tensor:
    """The live teacher's logits at the positions that have a label, row by row."""
    logits = teacher(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    return logits[:, :-1][batch.labels[:, 1:] != IGNORED].double()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_what_is_looked_up_is_what_the_teacher_says(
    temperature: float, teacher: Any, rows: Any, tmp_path: Path, small_shards: None
) -> None:
    cached = cache(teacher, rows, tmp_path / "cache", temperature=temperature)
    batch = to_batch([rows[6], rows[1], rows[8], rows[3]])
    cached.check(batch)
    top = cached.top_rows(batch)
    logits = said_by(teacher, batch)
    probs = (logits / temperature).softmax(-1)
    assert [set(ids) for ids in top.ids.tolist()] == [set(ids) for ids in logits.topk(8).indices.tolist()]
    torch.testing.assert_close(top.log_probs.double().exp(), probs.gather(-1, top.ids), rtol=5e-3, atol=1e-5)
    rest = torch.ones_like(probs, dtype=torch.bool).scatter(-1, top.ids, False)
    for tail, of in ((top.log_tail, probs), (top.log_tail_at_one, logits.softmax(-1))):
        torch.testing.assert_close(tail.double().exp(), (of * rest).sum(-1), rtol=5e-3, atol=1e-6)
    total = top.log_probs.double().exp().sum(-1) + top.log_tail.double().exp()
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-6, atol=1e-6)
    best = top.ids.gather(-1, top.log_probs.argmax(-1, keepdim=True)).flatten()
    assert best.tolist() == logits.argmax(-1).tolist()


def test_a_row_is_found_in_any_batch_with_any_padding(teacher: Any, rows: Any, tmp_path: Path) -> None:
    cached = cache(teacher, rows, tmp_path)
    alone = cached.top_rows(to_batch([rows[2]]))
    padded = to_batch([rows[2], rows[3]])
    flipped = Batch(
        input_ids=torch.cat([torch.zeros(2, 3, dtype=torch.long), padded.input_ids], dim=1),
        attention_mask=torch.cat([torch.zeros(2, 3, dtype=torch.long), padded.attention_mask], dim=1),
        labels=torch.cat([torch.full((2, 3), IGNORED), padded.labels], dim=1),
    )
    for batch in (padded, flipped):
        for one, other in zip(alone, cached.top_rows(batch), strict=True):
            torch.testing.assert_close(one, other[: len(one)], rtol=0, atol=0)


def test_the_key_of_a_row_depends_on_ids_labels_and_holes_in_the_mask_only() -> None:
    ids, labels = torch.tensor([[5, 6, 7]]), torch.tensor([[IGNORED, 6, 7]])
    mask = torch.ones_like(ids)
    plain = text_keys(Batch(input_ids=ids, attention_mask=mask, labels=labels))
    assert len(plain[0]) == 16
    for changed in (
        Batch(input_ids=torch.tensor([[5, 6, 8]]), attention_mask=mask, labels=labels),
        Batch(input_ids=ids, attention_mask=mask, labels=torch.tensor([[IGNORED, IGNORED, 7]])),
        Batch(input_ids=ids, attention_mask=torch.tensor([[1, 0, 1]]), labels=labels),
    ):
        assert text_keys(changed) != plain


def test_equal_rows_are_kept_once_and_rows_without_a_label_not_at_all(teacher: Any, rows: Any, tmp_path: Path) -> None:
    identity = cache(teacher, rows, tmp_path).identity
    assert (identity.rows, identity.tokens) == (7, 3 + 7 + 1 + 10 + 5 + 7 + 2)


def test_with_the_whole_vocabulary_the_loss_is_the_live_teachers(
    teacher: Any, student: Any, rows: Any, tmp_path: Path
) -> None:
    cached = cache(teacher, rows, tmp_path, k=1_000)
    assert cached.identity.settings.k == VOCABULARY
    batch = to_batch(rows[:4])
    with torch.no_grad():
        logits = student(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    students = logits[:, :-1][batch.labels[:, 1:] != IGNORED]
    kl = sparse_token_kl(students, cached.top_rows(batch), temperature=2.0)
    torch.testing.assert_close(
        kl, token_kl(students, said_by(teacher, batch).float(), temperature=2.0), rtol=1e-3, atol=1e-4
    )


def test_a_run_that_was_cut_off_goes_on_to_the_same_bytes(
    teacher: Any, rows: Any, tmp_path: Path, small_shards: None
) -> None:
    cache(teacher, rows, tmp_path / "whole")
    broken = CacheWriter(teacher, rows, settings=SETTINGS, batch_size=3)

    class KilledError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KilledError

    with pytest.raises(KilledError):
        broken.run(tmp_path / "cut", stop)
    (tmp_path / "cut" / ".tmp-1-shard-000009.safetensors").write_bytes(b"half")
    done = set(files(tmp_path / "cut"))
    assert 0 < sum("shard-0" in name for name in done) < sum("shard-0" in n for n in files(tmp_path / "whole"))
    with pytest.raises(DataError, match="not finished"):
        CachedTeacher(tmp_path / "cut")
    asked: list[int] = []
    CacheWriter(teacher, rows, settings=SETTINGS, batch_size=3).run(
        tmp_path / "cut", lambda done, _: asked.append(done)
    )
    assert asked[0] > 0
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_only_the_damaged_shard_is_made_again(teacher: Any, rows: Any, tmp_path: Path, small_shards: None) -> None:
    cache(teacher, rows, tmp_path)
    before = files(tmp_path)
    assert len([name for name in before if name.startswith("shard-")]) >= 3
    broken = tmp_path / "shard-000001.safetensors"
    broken.write_bytes(before[broken.name][:-1] + bytes([before[broken.name][-1] ^ 1]))
    times = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("shard-*")}
    damaged = CachedTeacher(tmp_path)
    with pytest.raises(StorageError, match=r"damaged; got shard-000001.safetensors.*cache-teacher command again"):
        damaged.top_rows(to_batch(rows))
    cache(teacher, rows, tmp_path)
    assert files(tmp_path) == before
    changed = [file.name for file in tmp_path.glob("shard-*") if file.stat().st_mtime_ns != times[file.name]]
    assert changed == [broken.name]


@pytest.mark.parametrize("name", ["order.safetensors", "manifest.json", "index-0000.safetensors"])
def test_a_damaged_order_or_manifest_is_named(
    name: str, teacher: Any, rows: Any, tmp_path: Path, small_shards: None
) -> None:
    cache(teacher, rows, tmp_path)
    before = files(tmp_path)
    (tmp_path / name).write_bytes(before[name][:-9])
    with pytest.raises(StorageError, match=name):
        CachedTeacher(tmp_path).check(to_batch(rows))
    if name != "manifest.json":
        cache(teacher, rows, tmp_path)
        assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 9}, "k 8 instead of 9"),
        ({"temperature": 3.0}, "temperature 2.0 instead of 3.0"),
        ({"value_type": "log8"}, "value_type float16 instead of log8"),
        ({"max_length": 64}, "max_length 32 instead of 64"),
        ({"packing": True}, "packing False instead of True"),
    ],
)
def test_a_cache_with_other_settings_is_refused(
    change: dict[str, Any], words: str, teacher: Any, rows: Any, tmp_path: Path
) -> None:
    cache(teacher, rows, tmp_path)
    before = files(tmp_path)
    with pytest.raises(DataError, match=rf"got {words}\. Fix") as error:
        cache(teacher, rows, tmp_path, **change)
    assert error.value.exit_code == 3
    assert files(tmp_path) == before


def test_a_changed_teacher_tokenizer_or_data_is_refused_by_name(
    teacher: Any, make_model: MakeModel, rows: Any, tmp_path: Path, tokenizer: Any
) -> None:
    cached = cache(teacher, rows, tmp_path)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    with torch.no_grad():
        teacher.model.norm.weight[0] += 1e-3
    with pytest.raises(DataError, match=r"got another teacher\. Fix"):
        cache(teacher, rows, tmp_path)
    teacher.load_state_dict(before)
    with pytest.raises(DataError, match=r"got other data\. Fix"):
        cache(teacher, rows[1:], tmp_path)
    with pytest.raises(
        DataError, match=r"got temperature 2.0 instead of 4.0, another teacher, another tokenizer\. Fix"
    ):
        cached.refuse_other(teacher=make_model(seed=9), tokenizer=tokenizer, temperature=4.0, k=8)
    cached.refuse_other(teacher=teacher, temperature=2.0)


def test_a_row_that_was_not_cached_is_refused_with_its_beginning(teacher: Any, rows: Any, tmp_path: Path) -> None:
    cached = cache(teacher, rows, tmp_path)
    with pytest.raises(DataError, match=r"1 of 2 rows are not in cache .* begins with the ids \[9, 9, 9\]"):
        cached.check(to_batch([rows[0], {"input_ids": [9, 9, 9]}]))


def test_a_tokenizer_and_a_config_come_with_the_cache(teacher: Any, rows: Any, tmp_path: Path, tokenizer: Any) -> None:
    CacheWriter(teacher, rows, settings=SETTINGS, tokenizer=tokenizer).run(tmp_path)
    config, again = CachedTeacher(tmp_path).load_config()
    assert config.hidden_size == teacher.config.hidden_size
    assert again.get_vocab() == tokenizer.get_vocab()
    path = tmp_path / "teacher" / "config.json"
    path.write_text(path.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(StorageError, match="differs from the one that the cache was made with"):
        CachedTeacher(tmp_path).load_config()


def test_columns_that_stand_for_no_token_are_left_out(teacher: Any, tmp_path: Path, tokenizer: Any) -> None:
    row, size = {"input_ids": [5, 6, 7, 8]}, len(tokenizer)
    assert size < VOCABULARY
    settings = SETTINGS.model_copy(update={"k": 99})
    CacheWriter(teacher, [row], settings=settings, tokenizer=tokenizer).run(tmp_path)
    cached, batch = CachedTeacher(tmp_path), to_batch([row])
    assert cached.identity.vocabulary == cached.identity.settings.k == size
    top, probs = cached.top_rows(batch), (said_by(teacher, batch)[:, :size] / 2).softmax(-1)
    assert top.ids.sort(-1).values.tolist() == [list(range(size))] * 3
    torch.testing.assert_close(top.log_probs.double().exp(), probs.gather(-1, top.ids), rtol=5e-3, atol=1e-5)


@pytest.mark.parametrize("change", [{"k": 0}, {"temperature": 0.0}, {"temperature": float("nan")}])
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], teacher: Any, rows: Any) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        CacheWriter(teacher, rows, settings=SETTINGS.model_copy(update=change))


def test_data_without_a_label_is_refused(teacher: Any) -> None:
    with pytest.raises(DataError, match="no row has a label"):
        CacheWriter(teacher, [{"input_ids": [5, 6], "labels": [IGNORED, IGNORED]}], settings=SETTINGS)


def test_a_teacher_whose_logits_are_not_finite_is_refused(teacher: Any, rows: Any) -> None:
    with torch.no_grad():
        teacher.lm_head.weight[3] = torch.nan
    with pytest.raises(NumericError, match="not finite"):
        CacheWriter(teacher, rows, settings=SETTINGS)


def test_a_full_disk_leaves_no_half_file(
    teacher: Any, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    made = CacheWriter(teacher, rows, settings=SETTINGS)
    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left on device, expected [\d,]+ bytes"):
        made.run(tmp_path)
    assert not list(tmp_path.glob("*.safetensors")) + list(tmp_path.glob(".tmp-*"))


def test_too_little_space_is_told_before_the_teacher_is_asked(
    teacher: Any, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = CacheWriter(teacher, rows, settings=SETTINGS)
    usage = type("Usage", (), {"free": 3})
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match=r"too little free space .* got 3 bytes"):
        made.run(tmp_path)


def test_a_directory_with_something_else_is_left_alone(teacher: Any, rows: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"holds files that are not a cache's; got thesis.txt"):
        cache(teacher, rows, tmp_path)
    assert files(tmp_path) == {"thesis.txt": b"mine"}


def test_the_estimate_comes_near_what_is_made(teacher: Any, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(8)
    rows = [{"input_ids": torch.randint(4, 64, (40,), generator=generator).tolist()} for _ in range(60)]
    made = CacheWriter(teacher, rows, settings=SETTINGS)
    estimate = made.estimate()
    made.run(tmp_path)
    blocks = sum(len(load_file(file)["blocks"]) for file in tmp_path.glob("shard-*"))
    assert estimate.positions == 60 * 39
    assert estimate.total_bytes == pytest.approx(blocks, rel=0.05)
    with torch.no_grad():
        logits = torch.cat([teacher(torch.tensor([row["input_ids"]])).logits[0, :-1] for row in rows])
    p = (logits.double() / 2).softmax(-1)
    assert estimate.mass_kept == pytest.approx(float(p.topk(8).values.sum(-1).mean()), rel=0.05)
    flat = torch.zeros_like(logits)
    assert estimate.whole_kl_nats == pytest.approx(4 * float(token_kl(flat, logits, temperature=2).mean()), rel=0.05)
    top = CachedTeacher(tmp_path).top_rows(to_batch(rows))
    hidden = token_kl(flat, logits, temperature=2) - sparse_token_kl(flat, top, temperature=2)
    assert estimate.hidden_kl_nats == pytest.approx(4 * float(hidden.mean()), rel=0.05)


@pytest.mark.slow
def test_kill_nine_in_the_middle_and_the_next_run_makes_the_same_bytes(teacher: Any, tmp_path: Path) -> None:
    teacher.save_pretrained(tmp_path / "teacher")

    def start(out: str, slow: float) -> subprocess.Popen[bytes]:
        where, quiet = [str(tmp_path / "teacher"), str(tmp_path / out)], subprocess.DEVNULL
        return subprocess.Popen([*WORKER, *where, "1/1", str(slow), "40", "60"], stdout=quiet, stderr=quiet)

    assert start("whole", 0).wait() == 0
    for shards in (1, 4, 9):
        process = start("cut", 0.05)
        while len(list((tmp_path / "cut").glob("shard-*"))) < shards:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert len(list((tmp_path / "cut").glob("shard-*"))) < len(list((tmp_path / "whole").glob("shard-*")))
        assert not (tmp_path / "cut" / "manifest.json").exists()
    assert start("cut", 0).wait() == 0
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
