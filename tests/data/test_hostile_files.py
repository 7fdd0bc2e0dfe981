"""Any file, folder or cache: rows, or one line of ours; within seconds and bounded memory, and never other rows."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from apt_model.config import LessonConfig
from apt_model.data.dataset import load_dataset, tokenize_dataset
from apt_model.data.json_text import DEEPEST, TooDeepError, parse_json
from apt_model.distill.teachers.cache.manifest import CacheSettings
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.errors import ConfigError, DataError
from tests.chats import byte_level
from tests.data.hostile import Hostile
from tests.data.pool import Child, Outcome

TEXTS = [f"row {number}" for number in range(40)]
QUICK, MANY = 16, 2_000


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    one = Child(tmp_path_factory.mktemp("home"))
    yield one
    one.close()


def is_right(outcome: Outcome) -> bool:
    """Rows, or one line of ours of bearable length with its exit code."""
    if outcome["kind"] == "refused":
        return "\n" not in outcome["said"] and len(outcome["said"]) < 4_000 and outcome["code"] in (2, 3, 5)
    return bool(outcome["kind"] == "rows")


def tried(child: Child, do: str, seeds: range, at: Path) -> Counter[str]:
    """How many inputs ended how; an input that ended wrong fails the test with its seed."""
    found: Counter[str] = Counter()
    for seed in seeds:
        hostile, here = Hostile(seed), at / str(seed)
        path = hostile.any(here) if do == "rows" else hostile.settings(here)
        how = {name: hostile.draw.random() < 0.25 for name in ("streaming", "packing", "split", "locale")}
        outcome = child.ask(do, path=str(path), cache=str(at / "cache"), **how)
        assert is_right(outcome), (seed, path, outcome)
        found[outcome["kind"]] += 1
        shutil.rmtree(here, ignore_errors=True)
        shutil.rmtree(at / "cache", ignore_errors=True)
    assert min(found["rows"], found["refused"]) >= len(seeds) // 20 - 1, "the grammar draws right inputs and wrong ones"
    return found


@pytest.mark.parametrize("do", ["rows", "settings"])
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(child: Child, tmp_path: Path, do: str) -> None:
    tried(child, do, range(QUICK), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("do", ["rows", "settings"])
def test_two_thousand_files_are_read_or_refused_in_one_line(
    child: Child, tmp_path: Path, do: str, record_property: Callable[[str, object], None]
) -> None:
    record_property("inputs", MANY)
    print(tried(child, do, range(1_000, 1_000 + MANY), tmp_path))


# ---- the rows are those of the file, whatever stands around it or is left of an earlier run -------------------------


def written(path: Path, texts: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def damage_cache(hostile: Hostile, cache: Path) -> None:
    """One or two of the files that an earlier run left: damaged, cut, emptied, gone, or something else."""
    files = sorted(path for path in cache.rglob("*") if path.is_file())
    for file in hostile.draw.sample(files, hostile.draw.randrange(1, 3)):
        content = file.read_bytes()
        batch_end = content.rfind(b"\xff\xff\xff\xff", 0, max(0, len(content) - 8))  # between two batches of Arrow
        hostile.pick(
            lambda file=file, content=content: file.write_bytes(hostile.damaged(content)),
            lambda file=file, content=content, end=batch_end: file.write_bytes(content[: max(0, end)]),
            lambda file=file: file.write_bytes(b""),
            lambda file=file: file.unlink(),
            lambda file=file, content=content: file.write_bytes(content.replace(b"row 1", b"row 7")),
            lambda file=file, content=content: file.write_bytes(content.replace(b'"text"', b'"texx"')),
        )


def after_a_damaged_cache(child: Child, seeds: range, at: Path) -> None:
    path, cache = written(at / "a.jsonl", TEXTS), at / "cache"
    for seed in seeds:
        hostile = Hostile(seed)
        packing = hostile.draw.random() < 0.3
        first = child.ask("rows", path=str(path), cache=str(cache), packing=packing)
        assert first["kind"] == "rows", first
        assert packing or first["rows"] == TEXTS
        damage_cache(hostile, cache)
        again = child.ask("rows", path=str(path), cache=str(cache), packing=packing)
        assert again.get("rows") == first["rows"], (seed, again)
        if hostile.draw.random() < 0.5:
            shutil.rmtree(cache)


def test_a_cache_damaged_since_the_last_run_is_made_anew(child: Child, tmp_path: Path) -> None:
    after_a_damaged_cache(child, range(15), tmp_path)


def test_a_locale_a_time_zone_and_a_second_process_at_once_change_no_row(child: Child, tmp_path: Path) -> None:
    """Both write the same cache at the same time; the file's name and texts are beyond ASCII."""
    texts = [f"第 {number} 行 é" for number in range(200)]
    path = tmp_path / "数据.jsonl"
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), "utf-8")
    odd = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "gbk"}
    other = Child(tmp_path / "home", **odd, TZ="Pacific/Apia")
    try:
        with ThreadPoolExecutor(2) as both:
            asked = [both.submit(one.ask, "rows", path=str(path), cache=str(tmp_path / "c")) for one in (child, other)]
            assert [one.result().get("rows") for one in asked] == [texts, texts]
        assert other.ask("rows", path=str(path), cache=str(tmp_path / "c")).get("rows") == texts
    finally:
        other.close()


def test_a_cache_that_may_not_grow_is_one_line_with_its_exit_code(child: Child, tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", TEXTS * 50)
    for most in (0, 100, 5_000, 40_000):
        outcome = child.ask("rows", path=str(path), cache=str(tmp_path / "cache"), most=most)
        assert (outcome["kind"], outcome.get("code")) == ("refused", 5), (most, outcome)
    assert child.ask("rows", path=str(path), cache=str(tmp_path / "cache"))["rows"] == TEXTS * 50


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_five_hundred_damaged_caches_are_made_anew(child: Child, tmp_path: Path) -> None:
    after_a_damaged_cache(child, range(1_000, 1_500), tmp_path)


def test_odd_entries_beside_a_file_change_no_row(child: Child, tmp_path: Path) -> None:
    for seed in range(15):
        hostile, here = Hostile(seed), tmp_path / str(seed)
        written(here / "data.jsonl", TEXTS)
        for _ in range(3):
            hostile.odd(here)
        outcome = child.ask("rows", path=str(here), cache=str(tmp_path / "cache"))
        assert is_right(outcome), (seed, outcome)
        assert outcome.get("rows", TEXTS) == TEXTS or any(
            entry.suffix == ".jsonl" and entry.is_file() and entry.name != "data.jsonl" for entry in here.iterdir()
        ), (seed, outcome)


def test_a_file_rewritten_within_the_same_tick_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same name, size and times: as on file systems that count in seconds, or for two writes at once."""
    real = Path.stat

    def frozen(self: Path, **how: Any) -> os.stat_result:
        seen = list(real(self, **how))
        seen[7:10] = [1_700_000_000] * 3
        return os.stat_result(seen, {"st_mtime_ns": 17 * 10**17, "st_ctime_ns": 17 * 10**17})

    path = written(tmp_path / "a.jsonl", ["one", "two"])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", frozen)
        assert list(load_dataset(path)["text"]) == ["one", "two"]
        written(path, ["six", "ten"])
        assert list(load_dataset(path)["text"]) == ["six", "ten"]


def test_a_saved_data_set_changed_in_place_is_tokenized_again(tmp_path: Path) -> None:
    """`datasets` finds tokens by the fingerprint in state.json, which such a change leaves alone."""
    first, other = tmp_path / "first", tmp_path / "other"
    datasets.Dataset.from_list([{"text": "one"}, {"text": "two"}]).save_to_disk(first)
    datasets.Dataset.from_list([{"text": "six"}, {"text": "ten"}]).save_to_disk(other)

    def ids() -> Any:
        return tokenize_dataset(load_dataset(first), byte_level())["input_ids"][:]

    before = ids()
    shutil.copyfile(other / "data-00000-of-00001.arrow", first / "data-00000-of-00001.arrow")
    assert ids() == byte_level()(["<s>six</s>", "<s>ten</s>"])["input_ids"] != before


@pytest.mark.parametrize("streaming", [True, False])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, streaming: bool) -> None:
    path = written(tmp_path / "a.jsonl", TEXTS)
    if streaming:
        rows = iter(load_dataset(path, streaming=True))
        next(rows)
        written(path, [*TEXTS, "one more"])
        with pytest.raises(DataError, match="has changed while it was read"):
            list(rows)
        return
    from apt_model.data import stored

    def growing(*given: Any) -> Iterator[Any]:
        yield from real(*given)
        written(path, [*TEXTS, "one more"])

    real, stored.chosen_rows = stored.chosen_rows, growing  # type: ignore[assignment]
    try:
        with pytest.raises(DataError, match="has changed while it was read"):
            load_dataset(path)
    finally:
        stored.chosen_rows = real


# ---- what the fuzzing and the trials found ---------------------------------------------------------------------------

DEEP: dict[str, Callable[[int], str]] = {
    "list": lambda depth: "[" * depth + "]" * depth,
    "object": lambda depth: '{"a":' * depth + "1" + "}" * depth,
    "lines": lambda depth: "[\n" * depth + "]\n" * depth,
    "open": lambda depth: '[{"a":' * (depth // 2),
}


@pytest.mark.parametrize("shape", DEEP)
@pytest.mark.parametrize("depth", [DEEPEST + 2, 1_000, 100_000, 1_000_000])
def test_a_value_is_refused_by_its_depth_before_it_is_parsed(
    shape: str, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by Python's recursion limit, which others raise: then the parser would run out of stack."""
    monkeypatch.setattr("json.loads", lambda *_, **__: pytest.fail("it was parsed"))
    with pytest.raises(TooDeepError):
        parse_json(DEEP[shape](depth))


def test_brackets_in_strings_are_no_depth() -> None:
    value = ["[" * 500 + '\\"[{', *[{"a": "}]"}] * 300]
    assert parse_json(json.dumps(value)) == value
    assert parse_json("[" * DEEPEST + "]" * DEEPEST)


def test_a_deep_value_that_the_parser_could_take_is_refused_by_its_line(tmp_path: Path) -> None:
    """900 deep was parsed, and then broke whoever walked it: "data to encode cannot be read", without file and line."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path = tmp_path / "a.json"
    path.write_text(f'[{{"text": "a"}},\n{{"messages": {json.dumps(turns)},\n"tools": [{DEEP["object"](900)}]}}]')
    with pytest.raises(DataError, match=r"a\.json, line 3 is nested too deeply"):
        load_dataset(path)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.txt.gz", "a.jsonl.zst"])
def test_a_line_without_end_is_refused_before_memory_is_full(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a file with holes, or of zeros compressed; the bounds are lowered here."""
    import gzip

    from apt_model.data import opening
    from tests.data.hostile import zstd

    monkeypatch.setattr(opening, "LONGEST_LINE", 1_000)
    monkeypatch.setattr(opening, "LARGEST_WHOLE", 1_000)
    content = b'\n{"text": "' + b"x" * 5_000
    pack = {".gz": gzip.compress, ".zst": zstd}.get(Path(name).suffix, bytes)
    (tmp_path / name).write_bytes(pack(content))
    with pytest.raises(DataError, match=r"line [12] is too long; got more than 1,000 bytes"):
        load_dataset(tmp_path / name)


@pytest.mark.parametrize("name", ["a.txt", "a.parquet", "a.arrow", "a.jsonl.xz"])
def test_a_terabyte_of_holes_is_refused_within_the_limits(child: Child, tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, 2**40)
    outcome = child.ask("rows", path=str(tmp_path / name), cache=str(tmp_path / "cache"))
    assert outcome["kind"] == "refused", outcome
    assert name in outcome["said"]


def test_a_text_too_long_for_a_tokenizer_is_refused_by_its_line(tmp_path: Path) -> None:
    """A tokenizer keeps hundreds of bytes for each letter: of 100 MB it ended the process."""
    path = written(tmp_path / "a.jsonl", ["short", "x" * 10_000_001])
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: the text of a row is too long; got 10,000,001 letters"):
        tokenize_dataset(load_dataset(path), byte_level())


def test_a_table_without_a_row_is_no_data(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": []}, features=datasets.Features({"text": datasets.Value("string")})).to_parquet(
        tmp_path / "a.parquet"
    )
    with pytest.raises(DataError, match="no text to learn from"):
        load_dataset(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no row to learn from"):
        tokenize_dataset(datasets.Dataset.from_dict({"text": []}), byte_level())


@pytest.mark.parametrize("name", ["a.arrow", "saved"])
def test_an_arrow_stream_cut_between_two_batches_is_not_taken_for_a_whole_one(tmp_path: Path, name: str) -> None:
    datasets.Dataset.from_list([{"text": text} for text in TEXTS]).save_to_disk(tmp_path / "saved")
    file = tmp_path / "saved/data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:-8])  # the mark of the end, as a killed writer leaves it out
    shutil.copyfile(file, tmp_path / "a.arrow")
    with pytest.raises(DataError, match="is cut off"):
        load_dataset(tmp_path / name)


def test_a_folder_within_that_cannot_be_read_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "a.jsonl", TEXTS)
    written(tmp_path / "locked/b.jsonl", TEXTS)
    real = os.scandir

    def closed(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("os.scandir", closed)
    with pytest.raises(DataError, match=r"folder .*locked cannot be read; got Permission denied"):
        load_dataset(tmp_path)


def test_a_pipe_named_as_data_is_told_from_a_file_that_is_not_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl is no file, but a pipe"):
        load_dataset(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.toml", "a." * 9_999 + "a = 1", "a key has too many parts"),
        ("a.yaml", "temperature: !!bool 5", "neither true nor false"),
        ("a.yaml", "temperature: !!timestamp x", "could not determine a constructor"),
        ("a.yaml", "temperature: !!map [a]", "expected a mapping node"),
        ("a.yaml", "x: &a [*a, *a, *a, *a]\ny: &b [*a, *a, *a]\ntemperature: [*b, *b, *b]", "temperature: got"),
        ("a.json", "{" + ",".join(f'"k{number}": 1' for number in range(9_999)) + "}", "and 9,979 more"),
        ("a.toml", "a = 1\n" + "#" * 2**18, "is too large; got more than 262,144 bytes"),
    ],
)
def test_settings_that_broke_their_reader_are_one_short_line(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=said) as refused:
        LessonConfig.from_file(tmp_path / name)
    assert len(str(refused.value)) < 1_500


@pytest.mark.parametrize("kind", ["fifo", "device", "directory"])
@pytest.mark.parametrize("locale", [True, False])
def test_settings_and_locales_are_files(child: Child, tmp_path: Path, kind: str, locale: bool) -> None:
    path = tmp_path / "a.toml"
    {"fifo": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "directory": Path.mkdir}[kind](path)
    outcome = child.ask("settings", path=str(path), locale=locale)
    assert outcome["kind"] == "refused", outcome
    assert outcome["code"] == 2


# ---- the cache of a teacher -----------------------------------------------------------------------------------------

ROWS = [{"input_ids": [5 + number % 7, 9, 11 + number, 2], "labels": [-100, 9, 11 + number, 2]} for number in range(12)]


@pytest.fixture(scope="module")
def teachers_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(num_attention_heads=2, max_position_embeddings=32, **sizes)).eval()
    at = tmp_path_factory.mktemp("teacher") / "cache"
    settings = CacheSettings(k=8, temperature=2.0, value_type="log8", max_length=16, packing=False)
    CacheWriter(model, ROWS, settings=settings).run(at)
    return at


def damage_teacher(hostile: Hostile, at: Path) -> None:
    file = hostile.draw.choice(sorted(path for path in at.rglob("*") if path.is_file()))
    content = file.read_bytes()
    digits = [place for place, byte in enumerate(content[:3_000]) if chr(byte).isdigit()]
    place = hostile.draw.choice(digits or [0])
    other = str(hostile.draw.randrange(10)).encode()

    def instead(make: Callable[[Path], Any]) -> None:
        file.unlink()
        make(file)

    hostile.pick(
        lambda: file.write_bytes(hostile.damaged(content)),
        *[lambda: file.write_bytes(content[:place] + other + content[place + 1 :])] * 3,
        lambda: file.write_text(hostile.deep()),
        lambda: file.write_text(json.dumps(hostile.value())),
        lambda: instead(os.mkfifo),
        lambda: instead(lambda path: path.symlink_to("/dev/zero")),
        lambda: instead(lambda path: path.symlink_to(path.name)),
        lambda: instead(Path.mkdir),
        lambda: instead(lambda path: None),
    )


def answers_of_damaged_caches(child: Child, good: Path, seeds: range, at: Path) -> Counter[str]:
    right = child.ask("teacher", path=str(good), rows=ROWS)
    assert right["kind"] == "rows", right
    found: Counter[str] = Counter()
    for seed in seeds:
        here = at / str(seed)
        shutil.copytree(good, here)
        damage_teacher(Hostile(seed), here)
        outcome = child.ask("teacher", path=str(here), rows=ROWS)
        assert is_right(outcome), (seed, outcome)
        assert outcome.get("rows", right["rows"]) == right["rows"], (seed, "other logits in silence")
        found[outcome["kind"]] += 1
        shutil.rmtree(here)
    return found


def test_a_damaged_cache_of_a_teacher_is_refused_or_says_the_same(
    child: Child, teachers_cache: Path, tmp_path: Path
) -> None:
    answers_of_damaged_caches(child, teachers_cache, range(60), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_thousand_damaged_caches_of_a_teacher_are_refused_or_say_the_same(
    child: Child, teachers_cache: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("inputs", MANY)
    print(answers_of_damaged_caches(child, teachers_cache, range(1_000, 1_000 + MANY), tmp_path))
