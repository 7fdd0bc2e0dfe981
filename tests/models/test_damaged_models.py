"""A model directory with anything in it loads, or is one line of ours that names the file, soon."""

import asyncio
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from apt_model.cli import main
from apt_model.data import template_run, template_trial
from apt_model.data.sources import readable
from apt_model.errors import AptModelError, DataError, ModelError, OutOfMemoryError
from apt_model.generation.talk import Conversation, continue_text
from apt_model.models import loading
from apt_model.models.pretrained import load_model, save_model
from apt_model.models.reading import reading
from tests.chats import CHATML, byte_level, small_llama
from tests.data.test_deadline import spin
from tests.models.mutants import SECONDS, Outcome, attempt, attempts, make_bases, try_out


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    made = make_bases(tmp_path_factory.mktemp("bases"))
    for base in made:
        try_out(base)  # whole, they work; and what is imported for that need not be in each fork
    return made


def wrong(found: list[tuple[str, Outcome]]) -> list[str]:
    return [f"{done}: {outcome}" for done, outcome in found if not outcome.is_right]


@pytest.mark.filterwarnings("ignore")
def test_a_mutated_model_loads_or_is_one_error_that_names_its_file(bases: list[Path], tmp_path: Path) -> None:
    found = list(attempts(bases, tmp_path, seed=18, count=60))
    assert wrong(found) == []
    assert len({outcome.kind for _, outcome in found}) >= 2, "some load, and some do not"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
def test_two_thousand_mutated_models_load_or_are_one_error_that_names_its_file(
    bases: list[Path], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    found = list(attempts(bases, tmp_path, seed=2000, count=2000))
    record_property("inputs", len(found))
    print(Counter(outcome.kind for _, outcome in found), Counter(outcome.file for _, outcome in found))
    print("slowest", max(outcome.seconds for _, outcome in found))
    assert wrong(found) == []


def raises(_: Path) -> None:
    raise KeyError("config.json")


def says_no_file(_: Path) -> None:
    raise ModelError("something is wrong")


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (raises, "KeyError"),
        (says_no_file, "ModelError"),
        (lambda _: time.sleep(5), "HANG"),
        (lambda _: os.kill(os.getpid(), signal.SIGKILL), "DIED"),
        (lambda _: bytearray(2**40), "MemoryError"),
    ],
)
def test_the_trial_sees_what_must_not_be(act: Callable[[Path], None], kind: str, tmp_path: Path) -> None:
    outcome = attempt(tmp_path, act, limit=2)
    assert (outcome.kind, outcome.is_right) == (kind, False)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends only because its time is up ends sooner."""
    monkeypatch.setattr(loading, "PATIENCE", 1)
    monkeypatch.setattr(template_trial, "SECONDS", 1)


def edit(file: Path, **more: Any) -> None:
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(before | more))


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    save_model(small_llama(hidden=32, layers=2, tie_word_embeddings=False), byte_level(), tmp_path / "llama")
    return tmp_path / "llama"


CONFIG, TOKENIZER, SETTINGS = "config.json", "tokenizer.json", "generation_config.json"
WORDS = "tokenizer_config.json"


def replaces(letter: str, times: int) -> list[dict[str, Any]]:
    return [{"type": "Replace", "pattern": {"String": letter}, "content": letter * 1000}] * times


def added(id_: int) -> list[dict[str, Any]]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return [{"id": id_, "content": "x", "special": True, **flags}]


GROWING: list[dict[str, Any]] = [
    {"normalizer": {"type": "Sequence", "normalizers": replaces("e", 4)}},
    {"normalizer": {"type": "Sequence", "normalizers": replaces("ዘ", 4)}},  # a letter that is not tried
    {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": replaces("e", 2)}] * 2}},
    {"normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"Regex": "(?=.)"}, "content": "x"}] * 50}},
    {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}] * 50}},
    {"decoder": {"type": "Sequence", "decoders": replaces("r", 4)}},
]  # fmt: skip


@pytest.mark.parametrize("change", GROWING)
def test_a_tokenizer_that_makes_a_short_text_endless_is_named_soon(
    change: dict[str, Any], llama: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(llama / TOKENIZER, **change)
    begun = time.monotonic()
    assert main(["talk", str(llama), "the river", "--lang", "en"]) == 3
    (line,) = capfd.readouterr().err.splitlines()
    assert (
        f"error[MODEL]: model {llama} cannot be loaded: {TOKENIZER}; got it may make more than 100,000 letters" in line
    )
    assert time.monotonic() - begun < SECONDS


def test_a_tokenizer_that_lengthens_as_those_in_use_do_is_taken(llama: Path) -> None:
    steps = [{"type": "Replace", "pattern": {"String": one}, "content": "▁"} for one in " \u3000\u00a0\u2009" * 10]
    words = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    three = {"type": "Replace", "pattern": {"String": "…"}, "content": "..."}
    edit(llama / TOKENIZER, normalizer={"type": "Sequence", "normalizers": [*steps, words, three]})
    assert load_model(llama)[1]("a…")["input_ids"]


def test_a_template_that_fills_the_model_for_a_short_question_is_named(llama: Path) -> None:
    (llama / "chat_template.jinja").write_text("{{ lipsum(n=50) }}{% for m in messages %}{{ m.content }}{% endfor %}")
    model, tokenizer, _ = load_model(llama)
    with pytest.raises(DataError, match=r"too long for the model; got \S+ tokens\. Fix: .*chat_template\.jinja"):
        Conversation(model, tokenizer).ask("a river?")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (CONFIG, {"num_attention_heads": 0}),
        (CONFIG, {"num_hidden_layers": -1}),
        (CONFIG, {"num_hidden_layers": 10**9}),
        (CONFIG, {"hidden_size": 10**9}),
        (CONFIG, {"model_type": "mamba2"}),  # whose sizes are those of 2.7 billion weights
        (CONFIG, {"dtype": "evil"}),
        (CONFIG, {"id2label": 5}),
        (CONFIG, {"num_labels": 10**9}),
        (CONFIG, {"pad_token_id": 10**9}),
        (CONFIG, {"is_encoder_decoder": True}),
        (CONFIG, {"transformers_weights": 5}),
        (CONFIG, {"quantization_config": 5}),
        (CONFIG, {"rope_parameters": {"rope_type": "evil"}}),
        (SETTINGS, {"eos_token_id": "evil"}),
        (SETTINGS, {"eos_token_id": 10**30}),
        (WORDS, {"model_max_length": "evil"}),
        (WORDS, {"tokenizer_class": 5}),
        (WORDS, {"chat_template": 5}),
        (TOKENIZER, {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}),
        (TOKENIZER, {"normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}}),
        (TOKENIZER, {"pre_tokenizer": 5}),
        (TOKENIZER, {"added_tokens": added(10**9)}),
        (WORDS, {"added_tokens_decoder": {"1000000000": {"content": "x", "special": True}}}),
        (WORDS, {"added_tokens_decoder": {"-1": {"content": "x", "special": True}}}),
        (WORDS, {"added_tokens_decoder": {"300": {"content": "x"}, "evil": {"content": "y"}}}),
        ("added_tokens.json", {"x": 10**9}),
        ("added_tokens.json", {"x": [10**9]}),
        (TOKENIZER, {"added_tokens": [{"id": 10**6, "content": "the", "special": True, "single_word": False,
                                       "lstrip": False, "rstrip": False, "normalized": False}]}),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("impatient")
def test_an_absurd_value_is_one_line_with_its_file(file: str, change: dict[str, Any], llama: Path) -> None:
    if "chat_template" in change:
        (llama / "chat_template.jinja").unlink()
    edit(llama / file, **change)
    with pytest.raises(ModelError, match=rf"^model \S+ (cannot be loaded: |is an enc.* in ){file}") as caught:
        load_model(llama)
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (3, False)


@pytest.mark.parametrize("file", [CONFIG, SETTINGS, WORDS, TOKENIZER])
@pytest.mark.parametrize(
    "content",
    [b"", b"[1]", b"5", b"null", b"\xff\xfe{}", b'{"a":' * 10**5, b'{"a": "\xc4\xe3"}', b'{"a": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_a_file_that_is_no_json_object_is_named(content: bytes, file: str, llama: Path) -> None:
    (llama / file).write_bytes(content)
    with pytest.raises(ModelError, match=rf"cannot be loaded: {file}"):
        load_model(llama)


TEMPLATES = {
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}": "does not end within",
    "{{ 'a' * 10 ** 10 }}": "more than 1024 MB of memory",
    "{% set n = namespace(s='a') %}{% for a in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}": "memory|not end",
    "{{ evil": "no jinja|end of",
}
FAILING = {
    "{{ 1 / 0 }}": "division by zero",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "RecursionError",
    "{% break %}": "SyntaxError",
    "{% for a in range(10 ** 9) %}{% endfor %}": "OverflowError",
    "{{ evil() }}": "UndefinedError",
    "{% include 'evil' %}": "no loader",
    "hello": "leaves out turn 1",
    "": "leaves out turn 1",
}


@pytest.mark.parametrize("template", FAILING)
def test_a_template_that_fails_on_every_chat_is_named_where_a_chat_is_written(template: str, llama: Path) -> None:
    (llama / "chat_template.jinja").write_text(template)
    model, tokenizer, _ = load_model(llama)
    assert continue_text(model, tokenizer, "a river", max_new_tokens=2)
    with pytest.raises(DataError, match=r"chat_template\.jinja") as caught:
        Conversation(model, tokenizer).ask("a river?")
    assert FAILING[template] in str(caught.value)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.usefixtures("impatient")
def test_a_template_that_is_no_jinja_or_does_not_end_is_named(template: str, llama: Path) -> None:
    (llama / "chat_template.jinja").write_text(template)
    begun = time.monotonic()
    with pytest.raises(ModelError, match=r"cannot be loaded: chat_template\.jinja") as caught:
        load_model(llama)
    assert any(words in str(caught.value) for words in TEMPLATES[template].split("|"))
    assert time.monotonic() - begun < SECONDS


@pytest.mark.parametrize(
    "template",
    [
        CHATML,
        "{% if messages|length < 3 %}{{ raise_exception('three turns, please') }}{% endif %}",
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
        "{% if messages[0].role != 'system' %}{{ 1 / 0 }}{% endif %}{{ messages }}",
        "{% for m in messages %}{% if m.role in ('human', 'gpt') %}{{ m.content }}{% endif %}{% endfor %}",
        "{{ documents[0].text }}{{ messages[0].content }}",
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    ],
)
def test_a_template_that_takes_some_chat_or_refuses_in_its_own_words_is_not_damaged(template: str, llama: Path) -> None:
    (llama / "chat_template.jinja").write_text(template)
    assert load_model(llama)[1].chat_template == template


def test_a_template_that_writes_in_capitals_is_asked(llama: Path) -> None:
    (llama / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content | upper }}{% endfor %}")
    model, tokenizer, _ = load_model(llama)
    Conversation(model, tokenizer, max_new_tokens=2).ask("a river?")


def slow(made: Callable[..., Any]) -> Callable[..., Any]:
    def wait_and_make(*values: Any, **how: Any) -> Any:
        time.sleep(0.3)
        return made(*values, **how)

    return wait_and_make


def test_what_is_slow_but_ends_has_all_its_time(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PATIENCE", 0.15)
    monkeypatch.setattr(template_run, "SECONDS", 0.15)
    for one in (AutoTokenizer, loading.GenerationConfig):
        monkeypatch.setattr(one, "from_pretrained", slow(one.from_pretrained))
    assert load_model(llama)[1] is not None
    monkeypatch.setattr(loading.AutoConfig, "from_pretrained", slow(loading.AutoConfig.from_pretrained))
    assert load_model(llama, trust_remote_code=True)[0] is not None
    with pytest.raises(ModelError, match="not read within"):
        load_model(llama)


def test_a_damaged_shard_and_one_that_is_missing_are_named(bases: list[Path], tmp_path: Path) -> None:
    import shutil

    model = shutil.copytree(bases[1], tmp_path / "model")
    shard = model / "model-00003-of-00005.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"cannot be loaded: model-00003-of-00005\.safetensors; got Error while"):
        load_model(model)
    shard.unlink()
    with pytest.raises(ModelError, match=r"cannot be loaded: model-00003-of-00005\.safetensors; got it is not there"):
        load_model(model)


class PreemptedError(BaseException):
    """What a caller's own signal handler raises."""


PASS = [KeyboardInterrupt(), SystemExit(), GeneratorExit(), DataError("ours"), asyncio.CancelledError(),
        PreemptedError()]  # fmt: skip


@pytest.mark.parametrize("within", [partial(reading, "m", CONFIG), partial(readable, "data")])
@pytest.mark.parametrize("passes", PASS)
def test_what_is_meant_for_others_and_our_own_errors_pass(passes: BaseException, within: Any) -> None:
    with pytest.raises(type(passes)) as caught, within():
        raise passes
    assert caught.value is passes


@pytest.mark.parametrize("within", [partial(reading, "m", CONFIG), partial(readable, "data")])
def test_a_panic_of_a_rust_package_is_one_line(within: Any) -> None:
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    with pytest.raises(AptModelError, match="index out of bounds"), within():
        raise panic("index out of bounds")


def test_what_to_do_about_data_that_fills_the_memory_is_said_as_it_was_asked_for() -> None:
    with pytest.raises(DataError, match="Fix: check the name"), readable("data", "check the name"):
        raise MemoryError


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_is_out_is_told_as_that(error: Exception) -> None:
    with pytest.raises(OutOfMemoryError, match="model m needs more memory than there is"), reading("m", CONFIG):
        raise error


def test_what_never_ends_is_told_as_that() -> None:
    with (
        pytest.raises(ModelError, match=r"config\.json; got it is not read within 0\.2 seconds"),
        reading("m", CONFIG, seconds=0.2),
    ):
        spin()


COMMANDS = (
    ["talk", "MODEL", "hello"],
    ["evaluate", "MODEL", "--data", "DATA"],
    ["doctor", "--teacher", "MODEL", "--student", "layers=1", "--data", "DATA"],
    ["distill", "--teacher", "MODEL", "--student", "layers=1", "--data", "DATA", "--out", "OUT"],
    ["cache-teacher", "--teacher", "MODEL", "--data", "DATA", "--out", "OUT"],
)


@pytest.mark.parametrize("argv", COMMANDS)
@pytest.mark.parametrize("error", [ValueError("no cpu tensor, please"), RuntimeError("an index"), ZeroDivisionError()])
def test_a_model_that_cannot_run_here_loads_and_is_one_line_where_it_runs(
    error: Exception,
    argv: list[str],
    llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(LlamaForCausalLM, "forward", refuses)
    load_model(llama)
    data = tmp_path / "data.txt"
    data.write_text("the river\nthe sea\n" * 20)
    named = {"MODEL": str(llama), "DATA": str(data), "OUT": str(tmp_path / "out"), "layers=1": str(llama)}
    code = main([*(named.get(word, word) for word in argv), "--lang", "en"])
    out, err = capfd.readouterr()
    told = [line for line in (out + err).splitlines() if type(error).__name__ in line or str(error) in line]
    assert code == 3
    assert any(f"config.json of {llama}; got " in line for line in told)
    assert "Traceback" not in err


@pytest.mark.parametrize("argv", [one for one in COMMANDS if one[0] in ("talk", "evaluate", "cache-teacher")])
def test_memory_that_is_out_where_a_model_runs_is_one_line_with_the_remedy(
    argv: list[str], llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LlamaForCausalLM, "forward", lambda *_, **__: torch.empty(2**60))
    data = tmp_path / "data.txt"
    data.write_text("the river\nthe sea\n" * 20)
    named = {"MODEL": str(llama), "DATA": str(data), "OUT": str(tmp_path / "out")}
    code = main([*(named.get(word, word) for word in argv), "--lang", "en"])
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert code == 4
    assert line.startswith("error[MEMORY]: ")
    assert "needs more memory than there is; got" in line
    assert "a smaller" in line.partition("Fix: ")[2]


def test_a_model_that_cannot_be_copied_loads(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = LlamaForCausalLM.__init__

    def with_lock(model: Any, config: Any) -> None:
        made(model, config)
        model.lock = threading.Lock()

    monkeypatch.setattr(LlamaForCausalLM, "__init__", with_lock)
    assert load_model(llama)[0].lock is not None


@pytest.mark.parametrize("argv", COMMANDS)
def test_every_command_names_the_file_in_one_line(
    argv: list[str], llama: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(llama / CONFIG, pad_token_id=10**9)
    data = tmp_path / "data.txt"
    data.write_text("the river\nthe sea\n" * 20)
    named = {"MODEL": str(llama), "DATA": str(data), "OUT": str(tmp_path / "out")}
    code = main([*(named.get(word, word) for word in argv), "--lang", "en"])
    errors = capfd.readouterr().err.strip().splitlines()
    assert (code, len(errors)) == (3, 1)
    assert errors[0].startswith(f"error[MODEL]: model {llama} cannot be loaded: config.json; got ")


def test_a_models_numbers_of_beams_and_tokens_are_told_and_not_used(
    llama: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["talk", str(llama), "hello", "--lang", "en", "--max-new-tokens", "3"]) == 0
    plain = capfd.readouterr()
    assert "generation_config" not in plain.err
    edit(llama / SETTINGS, num_beams=10**6, max_new_tokens=10**9, min_new_tokens=10**8, num_return_sequences=10**6)
    begun = time.monotonic()
    assert main(["talk", str(llama), "hello", "--lang", "en", "--max-new-tokens", "3"]) == 0
    bounded = capfd.readouterr()
    assert bounded.out == plain.out
    assert time.monotonic() - begun < SECONDS
    for setting in ("num_beams=1000000", "max_new_tokens=1000000000", "num_return_sequences=1000000"):
        assert setting in bounded.err
    assert "are not used" in bounded.err


def test_a_token_that_the_model_does_not_know_is_refused_before_it_is_asked(llama: Path) -> None:
    model, tokenizer, _ = load_model(llama)
    tokenizer.add_tokens(["zebra"])
    with pytest.raises(AptModelError, match=r"token id outside the model's vocabulary; got 263, expected below 263"):
        continue_text(model, tokenizer, "a zebra")


@pytest.mark.parametrize("words", ["0123456789", "ACGT"])
def test_a_tokenizer_that_writes_no_sentence_but_its_own_tokens_is_taken(words: str, llama: Path) -> None:
    model = models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[])
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model)).save_pretrained(llama)
    assert load_model(llama)[1](words[::-1])["input_ids"] == list(range(len(words)))[::-1]


def test_a_tokenizer_that_writes_nothing_or_far_too_much_is_named(llama: Path) -> None:
    whole = (llama / TOKENIZER).read_text()
    for change in (
        {"normalizer": {"type": "Prepend", "prepend": "x" * 10**6}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "[\\s\\S]"}, "content": ""}},
    ):
        (llama / TOKENIZER).write_text(whole)
        edit(llama / TOKENIZER, **change)
        with pytest.raises(ModelError, match=r"cannot be loaded: tokenizer\.json; got it writes \d+ tokens"):
            load_model(llama)


def test_a_gguf_file_cut_or_flipped_anywhere_loads_or_is_one_error_that_names_it(tmp_path: Path) -> None:
    import random

    from tests.models.test_pretrained import qwen_model, write_gguf

    data = write_gguf(tmp_path / "whole.gguf", qwen_model()).read_bytes()
    found, file = [], tmp_path / "model.gguf"
    for number in range(16):
        rng = random.Random(number)
        at = rng.randrange(3000)
        file.write_bytes(data[:at] if number % 4 == 0 else data[:at] + bytes([data[at] ^ 64]) + data[at + 1 :])
        found.append((f"number {number}", attempt(file, load_quietly)))
    assert wrong(found) == []


def load_quietly(path: Path) -> None:
    load_model(path, tell=lambda key, /, **values: None)
