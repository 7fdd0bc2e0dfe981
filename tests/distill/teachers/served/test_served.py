"""A teacher behind a server is cached as one that runs here, whatever goes wrong on the way, or refused in one line."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from apt_model.data.batch import to_batch
from apt_model.data.encoded import IGNORED
from apt_model.distill.teachers.cache import writer
from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.store import open_store
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.distill.teachers.cached import CachedTeacher
from apt_model.distill.teachers.served import connection
from apt_model.distill.teachers.served.connection import TeacherServer
from apt_model.distill.teachers.served.source import ServedTopK
from apt_model.errors import AptModelError, ConfigError, DataError, ModelError, NumericError
from tests.distill.teachers.served.kit import Teacher, serving

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
SETTINGS = CacheSettings(k=8, temperature=1.0, value_type="float16", max_length=32, packing=False)
KINDS = ("vllm", "sglang", "openai")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.01)


@pytest.fixture
def rows() -> list[dict[str, list[int]]]:
    """Rows of different lengths; the first tokens of each are given, the last one of some is not learned."""
    generator = torch.Generator().manual_seed(5)
    made = []
    for length in (5, 9, 3, 12, 7, 10, 4, 6, 8, 11):
        ids = torch.randint(4, 50, (length,), generator=generator).tolist()
        made.append({"input_ids": ids, "labels": [IGNORED, IGNORED, *ids[2:-1], ids[-1] if length % 2 else IGNORED]})
    return [row for row in made if any(label != IGNORED for label in row["labels"])]


@pytest.fixture
def served(make_model: Any, tokenizer: Any) -> Iterator[Teacher]:
    """A model with a column for each token, far from flat."""
    model = make_model(vocabulary=len(tokenizer), seed=1)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    with serving(Teacher(model, tokenizer)) as one:
        yield one


def source_of(served: Teacher, kind: Any = "vllm", **more: Any) -> ServedTopK:
    how = {name: more.pop(name) for name in ("in_flight", "key") if name in more}
    server = TeacherServer(address=served.address, patience=more.pop("patience", 20.0), **how)
    return ServedTopK(server, kind=kind, tokenizer=served.tokenizer, **{"k": 8} | more)


def cache(source: Any, rows: Any, path: Path, tokenizer: Any, **settings: Any) -> Path:
    CacheWriter(source, rows, settings=SETTINGS.model_copy(update=settings), tokenizer=tokenizer).run(path)
    return path


def shards(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.glob("*.safetensors"))}


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_of_a_served_teacher_is_that_of_the_same_model_here(
    kind: str, served: Teacher, rows: Any, tmp_path: Path
) -> None:
    cache(source_of(served, kind), rows, tmp_path / "served", served.tokenizer)
    cache(served.model, rows, tmp_path / "live", served.tokenizer)
    batch = to_batch(rows)
    told, live = (CachedTeacher(tmp_path / name).top_rows(batch) for name in ("served", "live"))
    assert told.ids.sort(dim=-1).values.tolist() == live.ids.sort(dim=-1).values.tolist()
    assert torch.equal(
        told.ids.gather(1, told.log_probs.argmax(1, True)), live.ids.gather(1, live.log_probs.argmax(1, True))
    )
    by_id = [one.log_probs.gather(1, one.ids.argsort(dim=-1)) for one in (told, live)]
    torch.testing.assert_close(by_id[0], by_id[1], atol=1e-2, rtol=1e-3)  # float16 rounds them apart
    torch.testing.assert_close(told.log_tail_at_one.exp(), live.log_tail_at_one.exp(), atol=1e-4, rtol=1e-2)
    assert torch.equal(told.log_tail, told.log_tail_at_one)


def test_with_the_whole_vocabulary_nothing_is_left_for_the_tail(served: Teacher, rows: Any, tmp_path: Path) -> None:
    ids = len(served.tokenizer)
    cache(source_of(served, k=64), rows, tmp_path, served.tokenizer, k=64)
    top = CachedTeacher(tmp_path).top_rows(to_batch(rows[:1]))
    with torch.no_grad():
        logits = served.model(input_ids=torch.tensor([rows[0]["input_ids"]])).logits[0].log_softmax(-1)
    assert top.ids.shape == (3, ids)
    said = torch.zeros(3, ids).scatter(1, top.ids, top.log_probs)
    torch.testing.assert_close(said, logits[1:4], atol=1e-2, rtol=1e-3)
    assert top.log_tail_at_one.exp().max() < 1e-6


def test_columns_of_a_head_that_stand_for_no_token_go_to_the_tail(
    served: Teacher, make_model: Any, rows: Any, tmp_path: Path
) -> None:
    ids = len(served.tokenizer)
    wide = make_model(vocabulary=ids + 8, seed=1)
    padded = {name: torch.cat([one, torch.zeros(8, 32)]) for name, one in served.model.state_dict().items()
              if len(one) == ids}  # fmt: skip
    wide.load_state_dict(served.model.state_dict() | padded)
    with serving(Teacher(wide, served.tokenizer)) as one, torch.no_grad():
        source, wide.lm_head.weight[:] = source_of(one, k=ids - 4), 0.1 * wide.lm_head.weight  # logits of padding are 0
        with pytest.raises(ModelError, match="finds ids likely that are no tokens; got id 6"):
            cache(source, rows, tmp_path / "likely", served.tokenizer, k=ids - 4)
        wide.lm_head.weight[:] = 100 * wide.lm_head.weight
        cache(source, rows, tmp_path / "next", served.tokenizer, k=ids - 4)
    top = CachedTeacher(tmp_path / "next").top_rows(to_batch(rows))
    assert top.ids.shape[1] == ids - 4
    assert top.ids.max() < ids


def test_what_passes_leaves_the_same_bytes(served: Teacher, rows: Any, tmp_path: Path) -> None:
    cache(source_of(served), rows, tmp_path / "calm", served.tokenizer)
    source = source_of(served)
    for fault in ("429", "503", "500", "cut", "half", "closed", "html"):
        served.passing.extend([fault, "", fault])
    cache(source, rows, tmp_path / "rough", served.tokenizer)
    assert not served.passing
    assert shards(tmp_path / "rough") == shards(tmp_path / "calm")


@pytest.mark.parametrize(
    ("fault", "kind", "error", "says"),
    [
        ("none", "vllm", ModelError, "no log-probabilities of a prompt"),
        ("texts", "vllm", ModelError, "with token ids"),
        ("texts", "openai", ModelError, "with token ids"),
        ("short", "vllm", ModelError, "another number of positions; got 4 positions, expected 5"),
        ("few", "vllm", ModelError, "another number of tokens at a position"),
        ("start token", "vllm", ModelError, "another number of positions"),
        ("noisy", "sglang", ModelError, "answers the same request differently"),
        ("scaled", "vllm", ConfigError, "divides log-probabilities by a temperature"),
        ("scaled", "sglang", ConfigError, "divides log-probabilities by a temperature"),
        ("too likely", "openai", ModelError, "cannot be right"),
        ("rising", "sglang", ModelError, "cannot be right"),
        ("nan", "vllm", NumericError, "no number; got NaN"),
        ("other tokenizer", "vllm", ModelError, "another tokenizer"),
        ("other tokenizer", "sglang", ModelError, "another tokenizer"),
        ("other tokenizer", "openai", ModelError, "another tokenizer"),
    ],
)
def test_a_server_that_cannot_teach_is_refused_by_name(
    fault: str, kind: str, error: type[AptModelError], says: str, served: Teacher, rows: Any
) -> None:
    served.lasting = frozenset({fault})
    with pytest.raises(error, match=says) as raised:
        CacheWriter(source_of(served, kind), rows, settings=SETTINGS, tokenizer=served.tokenizer)
    assert "\n" not in str(raised.value)


def test_the_limits_of_a_server_are_told_in_its_words(served: Teacher, rows: Any) -> None:
    served.limit = 5
    with pytest.raises(ConfigError, match=r"logprobs of 8, which is greater than max allowed: 5.*--max-logprobs"):
        CacheWriter(source_of(served), rows, settings=SETTINGS, tokenizer=served.tokenizer)
    served.limit, served.context = 64, 12
    with pytest.raises(DataError, match=r"got a row of 12 tokens, expected at most 11.*--max-model-len"):
        CacheWriter(source_of(served), rows, settings=SETTINGS, tokenizer=served.tokenizer)
    served.context = None
    with pytest.raises(ModelError, match="got teacher, expected 'other'"):
        source_of(served, model="other")
    served.key = "secret"
    with pytest.raises(ConfigError, match="wants a key; got HTTP 401: Unauthorized"):
        source_of(served).begin(to_batch(rows))
    source_of(served, key="secret").begin(to_batch(rows))


def test_a_temperature_other_than_1_is_refused(served: Teacher, rows: Any) -> None:
    settings = SETTINGS.model_copy(update={"temperature": 2.0})
    with pytest.raises(ConfigError, match="do not tell the tail at another; got temperature 2"):
        CacheWriter(source_of(served), rows, settings=settings, tokenizer=served.tokenizer)


def test_as_many_rows_are_in_flight_as_allowed_and_no_more(served: Teacher, rows: Any, tmp_path: Path) -> None:
    source, served.seconds = source_of(served, in_flight=3), 0.02
    cache(source, rows, tmp_path, served.tokenizer)
    assert served.most == 3


def test_a_server_that_is_not_there_or_dies_is_told_of(served: Teacher, rows: Any, tmp_path: Path) -> None:
    with serving(Teacher(served.model, served.tokenizer)) as gone:
        source = source_of(gone, patience=0.3)
        writing = CacheWriter(source, rows, settings=SETTINGS, tokenizer=served.tokenizer)
    with pytest.raises(ModelError, match=r"does not answer; got .*Fix: start the server, and give the same command"):
        writing.run(tmp_path)
    with pytest.raises(ModelError, match="in 0 s of trying"):
        source_of(gone, patience=60.0)
    served.seconds = 5.0
    with pytest.raises(ModelError, match=r"does not answer; got (ReadTimeout|TimeoutError)"):
        source_of(served, patience=0.2).begin(to_batch(rows))


def test_a_run_that_an_answer_ended_goes_on_to_the_same_bytes(
    served: Teacher, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SHARD_POSITIONS", 8)
    cache(source_of(served), rows, tmp_path / "whole", served.tokenizer)
    source = source_of(served, in_flight=1)
    writing = CacheWriter(source, rows, settings=SETTINGS, tokenizer=served.tokenizer)
    served.passing.extend(["", "", "", "", "404"])
    with pytest.raises(ModelError, match=r"has no /v1/completions"):
        writing.run(tmp_path / "cut")
    assert 0 < len(shards(tmp_path / "cut")) < len(shards(tmp_path / "whole"))
    cache(source_of(served), rows, tmp_path / "cut", served.tokenizer)
    assert shards(tmp_path / "cut") == shards(tmp_path / "whole")


def test_values_that_go_wrong_later_end_the_run(served: Teacher, rows: Any, tmp_path: Path) -> None:
    writing = CacheWriter(source_of(served), rows, settings=SETTINGS, tokenizer=served.tokenizer)
    served.lasting = frozenset({"nan"})
    with pytest.raises(NumericError, match="no number; got NaN"):
        writing.run(tmp_path)


def test_other_weights_of_the_same_name_are_refused(served: Teacher, rows: Any, tmp_path: Path) -> None:
    source, store = source_of(served), open_store(tmp_path)
    source.begin(to_batch(rows))
    source.refuse_other_weights(store)
    source.refuse_other_weights(store)
    served.lasting = frozenset({"flat"})
    other = source_of(served)
    assert other.fingerprint == source.fingerprint
    other.begin(to_batch(rows))
    with pytest.raises(DataError, match=r"begun with another model of this name; got .* nats apart"):
        other.refuse_other_weights(store)


@pytest.mark.parametrize("address", ["", "host:80", "ftp://host", "http://", "http://a:b@host", "http://host?x=1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="no address of a teacher's server"):
        TeacherServer(address=address)


def test_a_pause_that_the_server_asks_for_is_kept(served: Teacher, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        paused.append(seconds)

    monkeypatch.setattr(connection.anyio, "sleep", sleep)
    monkeypatch.setattr(connection, "_pause_of", lambda response: 7.0)
    source = source_of(served)
    served.passing.extend(["503", "429"])
    source.begin(to_batch(rows))
    assert paused == [7.0, 7.0]


def test_pauses_are_read_as_seconds_or_dates() -> None:
    def told(value: str) -> float:
        return connection._pause_of(connection.httpx2.Response(503, headers={"Retry-After": value}))

    assert [told(value) for value in ("12", "soon", "")] == [12.0, 0.0, 0.0]
    assert told("Fri, 01 Jan 2100 00:00:00 GMT") > 1e6
    assert np.isfinite(told("Fri, 01 Jan 2100 00:00:00 -0000"))


WORKER = """
import sys, torch
torch.set_num_threads(1)
from apt_model.distill.teachers.cache import writer
from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.distill.teachers.served.connection import TeacherServer
from apt_model.distill.teachers.served.source import ServedTopK
from apt_model.models.pretrained import load_description
writer.SHARD_POSITIONS = 40
tokenizer = load_description(sys.argv[1])[1]
generator = torch.Generator().manual_seed(8)
rows = [{"input_ids": torch.randint(4, 50, (20,), generator=generator).tolist()} for _ in range(60)]
settings = CacheSettings(k=8, temperature=1.0, value_type="log8", max_length=32, packing=False)
source = ServedTopK(TeacherServer(address=sys.argv[2], in_flight=4), kind="sglang", tokenizer=tokenizer, k=8)
CacheWriter(source, rows, settings=settings, tokenizer=tokenizer).run(sys.argv[3])
"""


@pytest.mark.slow
def test_killed_at_drawn_moments_and_resumed_the_bytes_are_the_same(served: Teacher, tmp_path: Path) -> None:
    served.tokenizer.save_pretrained(tmp_path / "tokenizer")
    command = [sys.executable, "-c", WORKER, str(tmp_path / "tokenizer"), served.address]
    draw = random.Random(19)
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    served.seconds = 0.05
    for _ in range(6):
        wanted = len(shards(tmp_path / "cut")) + draw.randint(1, 4)
        process = subprocess.Popen([*command, str(tmp_path / "cut")])
        while len(shards(tmp_path / "cut")) < wanted and process.poll() is None:
            time.sleep(draw.uniform(0.0, 0.1))
        process.kill()
        process.wait()
    served.seconds = 0.0
    subprocess.run([*command, str(tmp_path / "cut")], check=True)
    assert shards(tmp_path / "cut") == shards(tmp_path / "whole")
    assert (tmp_path / "cut" / "manifest.json").read_bytes() == (tmp_path / "whole" / "manifest.json").read_bytes()
