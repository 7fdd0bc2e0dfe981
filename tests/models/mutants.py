"""Damage model directories by a grammar, and say what became of one that is loaded, asked and run.

Knows files, JSON, jinja and bytes; knows nothing of how damage is found.
"""

import json
import os
import random
import re
import resource
import select
import shutil
import signal
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chats import byte_level, small_llama

SECONDS = 10
ROOM = 6 * 2**30  # of address space, over what the process has already
NAMES = re.compile(r"\b[\w.-]+\.(?:json|jinja|safetensors|gguf)\b")
OURS = ("ModelError", "DataError", "ConfigError")


def make_bases(folder: Path) -> list[Path]:
    """A Llama in one file, and a GPT-2 in shards with a trained tokenizer; both with template and generation config."""
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from apt_model.models.pretrained import save_model

    save_model(small_llama(hidden=32, layers=2, tie_word_embeddings=False), byte_level(), folder / "llama")
    made = _trained_tokenizer()
    words = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>", pad_token="<|end|>")
    words.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>{% endfor %}"
    config = GPT2Config(
        vocab_size=made.get_vocab_size(), n_embd=32, n_layer=2, n_head=4, n_positions=128, eos_token_id=0
    )
    model = GPT2LMHeadModel(config).eval()
    model.generation_config.update(eos_token_id=0, pad_token_id=0, do_sample=True, temperature=0.7, top_p=0.9)
    model.save_pretrained(folder / "gpt2", max_shard_size="40KB")
    words.save_pretrained(folder / "gpt2")
    return [folder / "llama", folder / "gpt2"]


def _trained_tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}+|[^\s\p{L}\p{N}]+|\s+"), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    made.train_from_iterator(["the river runs to the sea, and the sea is the end of the river"], trainer)
    return made


ABSURD: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 5, 7, 10**4, 10**6, 10**9, 2**31, 2**63, 10**30, -(10**9), 0.0, 0.5, -0.5, 1e-30, 1e308,
    float("nan"), float("inf"), True, False, None, "", "evil", "\x00", "人", "\ud800", "../../etc/passwd", "owner/repo",
    "a" * 10_000, [], [0], [-1], [None], [[]], ["evil"], {}, {"": 0}, {"evil": "evil"}, {"0": None}, {"a": {"a": {}}},
    list(range(1000)),
)  # fmt: skip
KEYS: dict[str, tuple[Any, ...]] = {  # by the files' names: keys that may be put in, and values that mean something
    "config.json": (
        ("dtype", "evil"), ("torch_dtype", 5), ("id2label", 5), ("label2id", []), ("num_labels", 10**9),
        ("pad_token_id", 10**9), ("vocab_size", 10**9), ("num_hidden_layers", 10**9), ("n_layer", -1),
        ("num_attention_heads", 0), ("n_head", 10**9), ("num_key_value_heads", 0), ("hidden_size", 10**9),
        ("head_dim", 10**9), ("n_embd", 10**9), ("n_positions", 10**9), ("max_position_embeddings", 10**9),
        ("max_position_embeddings", -1), ("architectures", ["BertModel"]), ("model_type", "bert"),
        ("model_type", "t5"), ("model_type", "gpt2"), ("model_type", "llama"), ("model_type", "mamba2"),
        ("model_type", "llava"), ("model_type", "gpt_neox"), ("is_encoder_decoder", True),
        ("quantization_config", {"quant_method": "evil"}), ("quantization_config", {"quant_method": "gptq", "bits": 5}),
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}), ("quantization_config", 5),
        ("quantization_config", {}), ("quantization_config", {"quant_method": "fp8", "weight_block_size": [0, 0]}),
        ("rope_parameters", {"rope_type": "evil"}), ("rope_parameters", {"rope_type": "yarn", "factor": -1}),
        ("rope_parameters", {"rope_type": "linear", "rope_theta": 0, "factor": 0}), ("rope_scaling", {"type": 5}),
        ("rope_parameters", {"rope_type": "longrope", "short_factor": [1], "long_factor": [], "rope_theta": 1e4}),
        ("layer_types", ["evil"]), ("layer_types", ["sliding_attention"] * 2), ("sliding_window", 0),
        ("attn_implementation", "owner/repo"), ("_attn_implementation", "owner/repo"),
        ("attn_implementation", "flash_attention_2"), ("attn_implementation", {"": "owner/repo"}),
        ("_attn_implementation_internal", "owner/repo"), ("experts_implementation", "sonicmoe"),
        ("auto_map", {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "owner/repo--evil.Evil"}), ("auto_map", 5),
        ("transformers_weights", "../model.safetensors"), ("transformers_weights", 5), ("fusion_config", {"evil": 1}),
        ("hidden_act", "evil"), ("activation_function", 5), ("text_config", {"model_type": "llama"}),
        ("text_config", 5), ("tie_word_embeddings", True), ("use_cache", "evil"), ("num_beams", 10**6),
        ("max_length", 10**9), ("per_layer_config", 5), ("attribute_map", {"hidden_size": "evil"}),
        ("base_model_tp_plan", 5), ("base_model_pp_plan", 5), ("torchscript", True), ("output_attentions", True),
        ("output_hidden_states", "evil"), ("return_dict", False), ("chunk_size_feed_forward", 10**9),
        ("transformers_version", 5), ("pruned_heads", {"0": [0]}), ("_name_or_path", "../.."), ("is_decoder", True),
        ("add_cross_attention", True), ("keys_to_ignore_at_inference", 5), ("sub_configs", 5),
        ("initializer_range", -1), ("rms_norm_eps", float("nan")), ("layer_norm_epsilon", "evil"),
    ),
    "generation_config.json": (
        ("num_beams", 10**6), ("max_new_tokens", 10**9), ("max_length", 10**9), ("min_new_tokens", 10**9),
        ("min_length", 10**9), ("num_return_sequences", 10**6), ("penalty_alpha", 0.6), ("top_k", 10**9),
        ("top_k", -1), ("temperature", 0), ("temperature", "evil"), ("num_beam_groups", 7), ("diversity_penalty", 9),
        ("stop_strings", ["", "a"]), ("bad_words_ids", [[10**9]]), ("bad_words_ids", 5), ("force_words_ids", [[1]]),
        ("sequence_bias", {"evil": 5}), ("watermarking_config", {"bias": "evil"}), ("watermarking_config", 5),
        ("prompt_lookup_num_tokens", 10**9), ("cache_implementation", "evil"), ("cache_implementation", "static"),
        ("cache_config", 5), ("compile_config", {"fullgraph": True}), ("assistant_early_exit", 1),
        ("assistant_confidence_threshold", "evil"), ("num_assistant_tokens", 10**9), ("is_assistant", True),
        ("eos_token_id", "evil"), ("eos_token_id", [1, None]), ("eos_token_id", -1), ("eos_token_id", 10**30),
        ("eos_token_id", {"a": 1}), ("pad_token_id", 10**9), ("bos_token_id", "evil"), ("suppress_tokens", [10**9]),
        ("forced_eos_token_id", 10**9), ("forced_bos_token_id", -5), ("custom_generate", "owner/repo"),
        ("exponential_decay_length_penalty", [1]), ("guidance_scale", 1e9), ("max_time", -1), ("dola_layers", "high"),
        ("constraints", [5]), ("renormalize_logits", 5), ("encoder_no_repeat_ngram_size", 3),
        ("no_repeat_ngram_size", 10**9), ("repetition_penalty", -1), ("use_cache", "evil"), ("continuous_batching", 1),
        ("generation_kwargs", 5), ("_from_model_config", 5), ("transformers_version", 5), ("trust_remote_code", True),
        ("disable_compile", 5), ("return_dict_in_generate", True), ("output_scores", True), ("low_memory", True),
    ),
    "tokenizer_config.json": (
        ("model_max_length", -1), ("model_max_length", "evil"), ("padding_side", "evil"), ("truncation_side", 5),
        ("chat_template", "{{ 1 / 0 }}"), ("chat_template", 5), ("chat_template", {"default": 5}),
        ("chat_template", [{"name": "default"}]), ("tokenizer_class", "evil"), ("tokenizer_class", "BertTokenizer"),
        ("tokenizer_class", "T5Tokenizer"), ("tokenizer_class", 5),
        ("auto_map", {"AutoTokenizer": ["evil.Evil", None]}),
        ("tokenizer_file", "../../secret"), ("vocab_file", "/etc/passwd"), ("merges_file", "/etc/passwd"),
        ("eos_token", 5), ("eos_token", {"content": 5}), ("pad_token", {"__type": "AddedToken"}), ("bos_token", "new"),
        ("pad_token", "never seen"), ("added_tokens_decoder", {"-1": {"content": "x"}}), ("added_tokens_decoder", 5),
        ("added_tokens_decoder", {"1000000000": {"content": "x", "special": True}}), ("extra_special_tokens", 5),
        ("added_tokens_decoder", {"evil": {"content": "x"}}), ("extra_special_tokens", {"a": 5}),
        ("additional_special_tokens", [5]), ("init_inputs", [1, 2, 3]), ("init_inputs", 5), ("backend", "evil"),
        ("clean_up_tokenization_spaces", "evil"), ("model_input_names", 5), ("model_input_names", []),
        ("split_special_tokens", "evil"), ("add_prefix_space", "evil"), ("name_or_path", "../.."),
        ("fast_tokenizer_files", ["tokenizer.9.json"]), ("fix_mistral_regex", True), ("response_schema", 5),
        ("is_local", 5), ("legacy", "evil"), ("from_slow", True), ("use_fast", False), ("processor_class", "Evil"),
    ),
    "tokenizer.json": (
        ("truncation", {"max_length": 0, "strategy": "LongestFirst", "stride": 9, "direction": "Right"}),
        ("truncation", {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}),
        ("padding", {"strategy": {"Fixed": 10**6}, "direction": "Left", "pad_id": 10**6, "pad_type_id": 0,
                     "pad_token": "x", "pad_to_multiple_of": None}),
        ("padding", {"strategy": "BatchLongest", "direction": "Left", "pad_id": -1}),
        ("added_tokens", [{"id": -1, "content": "x"}]), ("added_tokens", 5), ("added_tokens", [5]),
        ("added_tokens", [{"id": 10**6, "content": "the", "special": True, "single_word": False, "lstrip": False,
                           "rstrip": False, "normalized": False}]),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}), ("normalizer", 5),
        ("normalizer", {"type": "Replace", "pattern": {"String": ""}, "content": "aaaaaaaa"}),
        ("normalizer", {"type": "Prepend", "prepend": "x" * 10**6}), ("normalizer", {"type": "Lowercase"}),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": ""}, "behavior": "Isolated", "invert": False}),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(.*)*(.*)*x"}, "behavior": "Removed",
                           "invert": True}),
        ("pre_tokenizer", {"type": "evil"}), ("pre_tokenizer", None), ("decoder", None), ("decoder", {"type": "evil"}),
        ("decoder", {"type": "Strip", "content": "x", "start": 10**9, "stop": 10**9}), ("post_processor", 5),
        ("post_processor", {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}],
                            "pair": [], "special_tokens": {}}),
        ("post_processor", {"type": "TemplateProcessing", "pair": [],
                            "special_tokens": {"x": {"id": "x", "ids": [10**6], "tokens": ["x"]}},
                            "single": [{"SpecialToken": {"id": "x", "type_id": 0}},
                                       {"Sequence": {"id": "A", "type_id": 0}}]}),
        ("model", {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "b"}), ("model", {"type": "evil"}),
        ("model", {"type": "BPE", "vocab": {"a": -1}, "merges": []}),
        ("model", {"type": "BPE", "vocab": {}, "merges": []}),
        ("model", {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}),
        ("model", {"type": "BPE", "vocab": {"a": 0, "b": 10**9}, "merges": []}),
        ("model", {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}),
        ("model", {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"], "dropout": 7}),
        ("model", {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 9}), ("model", 5),
        ("model", {"type": "Unigram", "vocab": [["a", float("nan")]], "unk_id": 0}), ("version", 5),
        ("model", {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a", "max_input_chars_per_word": 0,
                   "continuing_subword_prefix": ""}),
    ),
    "model.safetensors.index.json": (("weight_map", 5), ("weight_map", {}), ("weight_map", {"a": 5}), ("metadata", 5)),
}  # fmt: skip
OUTSIDE = ("../{}", "/etc/passwd", "/dev/zero", "../../x.safetensors", "a/../../{}", "missing.safetensors", "", ".", 5,
           None, "config.json", "tokenizer.json", "{}/", "\x00", "sub/{}")  # fmt: skip
STATEMENTS = (
    "{{% for a in range({n}) %}}{body}{{% endfor %}}", "{{% if messages %}}{body}{{% endif %}}",
    "{{% for m in messages %}}{body}{{% endfor %}}", "{{% set x = {value} %}}{body}", "{{{{ {value} }}}}",
    "{{% macro f(x) %}}{body}{{{{ f(x) }}}}{{% endmacro %}}{{{{ f(1) }}}}",
    "{{% set ns = namespace(s='ab') %}}{{% for a in range({n}) %}}{{% set ns.s = ns.s ~ ns.s %}}{{% endfor %}}{body}",
    "{{% for a in range({n}) recursive %}}{{{{ loop([a]) }}}}{{% endfor %}}", "{{% include 'evil' %}}",
    "{{% import 'evil' as x %}}", "{{% extends 'evil' %}}", "{{% filter upper %}}{body}{{% endfilter %}}", "{{% if %}}",
    "{{% endfor %}}", "{{{{", "{{%", "{{% generation %}}{body}{{% endgeneration %}}", "{{% break %}}",
    "{{% call f() %}}{body}{{% endcall %}}", "{{{{ raise_exception('no') }}}}", "{body}{body}",
)  # fmt: skip
VALUES = (
    "1 / 0", "'a' * {n}", "{n} ** {n}", "messages[{n}]", "messages.evil.evil", "evil()", "evil | evil", "[0] * {n}",
    "messages | tojson(indent={n})", "'%{n}d' | format(1)", "'a' | center({n})", "range({n}) | list",
    "'{{:>{n}}}'.format(1)",
    "''.__class__.__mro__", "messages[0].content", "messages | map(attribute='content') | join('-')",
    "strftime_now('%Y')",
    "strftime_now('\\x00')", "messages.append(1)", "lipsum(n={n})", "cycler('a').next()", "'a'.zfill({n})",
    "self.evil()",
    "((" * 200 + "1" + "))" * 200, "-" * 300 + "1", "dict(a=1).a.b.c", "messages | batch({n}) | list",
    "'a' | indent({n})", "(range(99999) | list * 99) | sort | length", "joiner('a')()", "tools | length", "'\\ud800'",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of a mutated directory: "loaded", an error of ours by name, or what must not be; and its words."""

    kind: str
    words: str
    seconds: float
    file: str = ""

    @property
    def is_right(self) -> bool:
        return self.kind == "loaded" or (self.kind in OURS and self.file != "" and self.seconds < SECONDS)


def mutate(directory: Path, rng: random.Random) -> str:
    """Damage a model directory once or twice; what was done, in words."""
    return "; ".join(rng.choice(WAYS)(directory, rng) for _ in range(rng.choice((1, 1, 1, 2))))


def _json_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*.json") if path.is_file() and not path.is_symlink())


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in _places(one, (*path, key)))]


def _put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    value[path[0]] = _put(value[path[0]], path[1:], new)
    return value


def _change_json(directory: Path, rng: random.Random) -> str:
    """Replace, delete or wrap a value somewhere in a JSON file, shallow places as often as deep ones."""
    file = rng.choice(_json_files(directory))
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return f"{file.name} is no JSON already"
    by_depth: dict[int, list[tuple[Any, ...]]] = {}
    for place in _places(value)[:5000]:
        by_depth.setdefault(len(place), []).append(place)
    place = rng.choice(by_depth[rng.choice(sorted(by_depth))])
    if rng.random() < 0.2 and place:
        holder = value
        for key in place[:-1]:
            holder = holder[key]
        del holder[place[-1]]
        said = "deleted"
    else:
        new = rng.choice(ABSURD)
        value, said = _put(value, place, new), f"= {str(new)[:40]!r}"
    file.write_text(json.dumps(value), errors="surrogatepass")
    return f"{file.name} {place} {said}"


def _add_key(directory: Path, rng: random.Random) -> str:
    """Put a key with a meaning into a JSON file, sometimes with an absurd value, or into a part of it."""
    file = directory / rng.choice([name for name in KEYS if (directory / name).is_file()])
    key, value = rng.choice(KEYS[file.name])
    value = rng.choice(ABSURD) if rng.random() < 0.25 else value
    try:
        before = json.loads(file.read_bytes())
        before[key] = value
        if rng.random() < 0.1:
            before["text_config"] = {key: value}
    except (ValueError, TypeError, RecursionError):
        return f"{file.name} is no JSON object already"
    file.write_text(json.dumps(before), errors="surrogatepass")
    return f"{file.name} {key} = {str(value)[:60]!r}"


def _change_text(directory: Path, rng: random.Random) -> str:
    """Spoil a whole JSON file or template: encoding, nesting, cut, empty, another type, a key twice."""
    texts = [*_json_files(directory), *directory.glob("*.jinja")]
    file = rng.choice(sorted(texts))
    text = file.read_bytes()
    ways: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"",
        "cut": lambda: text[: rng.randrange(len(text) + 1)],
        "a list": lambda: b"[" + text + b"]",
        "a number": lambda: b"5",
        "null": lambda: b"null",
        "a string": lambda: json.dumps(text.decode(errors="replace")).encode(),
        "not UTF-8": lambda: text.replace(b"e", b"\xff", 1),
        "UTF-16": lambda: text.decode(errors="replace").encode("utf-16"),
        "a BOM": lambda: b"\xef\xbb\xbf" + text,
        "GBK": lambda: text.replace(b'"', b'"\xc4\xe3', 1),
        "deep": lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "a deep key": lambda: text[:-1].rstrip().removesuffix(b"}") + b', "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        "a long number": lambda: text.replace(b": ", b": " + b"9" * 5000 + b", " + b'"x": ', 1),
        "a key twice": lambda: text.replace(b"{", b'{"model_type": 5, "model": 5, "model_type": 5, ', 1),
        "NULs": lambda: text.replace(b"\n", b"\x00"),
        "twice": lambda: text + text,
        "noise": lambda: rng.randbytes(len(text)),
        "a bit": lambda: _flipped(text, rng, 1),
    }
    way = rng.choice(sorted(ways))
    file.write_bytes(ways[way]())
    return f"{file.name} is {way}"


def _flipped(data: bytes, rng: random.Random, times: int, end: int | None = None) -> bytes:
    changed = bytearray(data)
    for _ in range(times if data else 0):
        changed[rng.randrange(min(len(data), end or len(data)))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _change_weights(directory: Path, rng: random.Random) -> str:
    """Flip bits of a safetensors file, cut it, or say something else in its header."""
    files = sorted(path for path in directory.glob("*.safetensors") if path.is_file() and not path.is_symlink())
    if not files:
        return "no weights left"
    file = rng.choice(files)
    data = file.read_bytes()
    size = struct.unpack("<Q", data[:8])[0] if len(data) > 8 else 0
    way = rng.choice(("bits", "header bits", "cut", "length", "entry", "longer", "empty", "noise"))
    if way == "bits":
        data = _flipped(data, rng, 3)
    elif way == "header bits":
        data = _flipped(data, rng, 1, 8 + size % 10**6)
    elif way == "cut":
        data = data[: rng.randrange(len(data) + 1)]
    elif way == "length":
        data = struct.pack("<Q", rng.choice((0, 1, 2**63, 2**64 - 1, 10**9, size + 1))) + data[8:]
    elif way == "longer":
        data += b"\0" * rng.choice((1, 1000))
    elif way == "entry" and len(data) > 8 + size and size:
        data = _with_entry(data, size, rng)
    else:
        data = b"" if way == "empty" else rng.randbytes(len(data))
    file.write_bytes(data)
    return f"{file.name}: {way}"


def _with_entry(data: bytes, size: int, rng: random.Random) -> bytes:
    try:
        header = json.loads(data[8 : 8 + size])
        name = rng.choice([name for name in header if name != "__metadata__"])
        header[name][rng.choice(("shape", "dtype", "data_offsets"))] = rng.choice(
            ([10**9], [0], [-1], [], [1, 1], "F16", "I64", "evil", [0, 1], [0, 10**12], None)
        )
        if rng.random() < 0.3:
            header[name + "x"] = header.pop(name)
    except (ValueError, LookupError, TypeError):
        return data
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data[8 + size :]


def _change_template(directory: Path, rng: random.Random) -> str:
    """Another chat template, drawn from a grammar of statements and expressions, before or behind the true one."""
    file = directory / "chat_template.jinja"
    before = file.read_text() if file.is_file() else ""
    new = _block(rng, 3)
    file.write_text(rng.choice((new, new, before + new, new + before)))
    return f"template {new[:150]!r}"


def _block(rng: random.Random, depth: int) -> str:
    body = _block(rng, depth - 1) if depth else "x"
    number = rng.choice((3, 50, 99_999, 10**6, 10**10))
    value = rng.choice(VALUES).format(n=number)
    return rng.choice(STATEMENTS).format(n=number, body=body, value=value)


def _swap(directory: Path, rng: random.Random) -> str:
    """Take a file away, put another one's content, a directory, a link or a pipe in its place."""
    file = rng.choice(sorted(path for path in directory.iterdir() if path.suffix != ".md"))
    other = rng.choice(sorted(path for path in directory.iterdir() if path.is_file() and not path.is_symlink()))
    way = rng.choice(("gone", "content", "folder", "link out", "link to itself", "pipe", "device", "link in", "etc"))
    content = other.read_bytes()
    shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()
    if way == "content":
        file.write_bytes(content)
    elif way == "folder":
        file.mkdir()
    elif way == "pipe":
        os.mkfifo(file)
    elif way != "gone":
        outside = directory.parent / f"outside-{file.name}"
        outside.write_bytes(content)
        goal = {"link out": outside, "link to itself": file, "device": Path("/dev/zero"), "link in": other.name}
        file.symlink_to(goal.get(way, Path("/etc/passwd")))
    return f"{file.name}: {way}"


def _change_index(directory: Path, rng: random.Random) -> str:
    """Let the index name another file for a tensor, or for all of them."""
    file = directory / "model.safetensors.index.json"
    try:
        index = json.loads(file.read_bytes())
        places = index["weight_map"]
        name = rng.choice(sorted(places))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return _add_key(directory, rng)
    where = rng.choice(OUTSIDE)
    where = where.format(places[name]) if isinstance(where, str) else where
    if isinstance(places[name], str) and (directory / places[name]).is_file():
        shutil.copy(directory / places[name], directory.parent / places[name])
    for one in [name] if rng.random() < 0.5 else list(places):
        places[one] = where
    file.write_text(json.dumps(index))
    return f"index: {name} in {where!r}"


WAYS: tuple[Callable[[Path, random.Random], str], ...] = (
    *(_change_json,) * 5, *(_add_key,) * 6, *(_change_text,) * 3, *(_change_weights,) * 2, *(_change_template,) * 3,
    *(_swap,) * 2, _change_index,
)  # fmt: skip


def try_out(directory: Path) -> None:
    """Whatever a user does first: load, encode, run forward, continue a text, ask in the template."""
    import torch

    from apt_model.data.batch import to_batch
    from apt_model.data.template import has_template
    from apt_model.generation.talk import Conversation, continue_text
    from apt_model.models.forward import Forward, limits
    from apt_model.models.pretrained import load_model

    def tell(key: str, /, **values: Any) -> None: ...

    model, tokenizer, _ = load_model(directory, tell=tell)
    ids = torch.arange(2).unsqueeze(0) % (limits(model)[0] or 2)
    with torch.no_grad():
        Forward(model, "model")(model, to_batch(ids))
    if tokenizer is None:
        return
    continue_text(model, tokenizer, "the river", max_new_tokens=4)
    if has_template(tokenizer):
        Conversation(model, tokenizer, max_new_tokens=4, tell=tell).ask("a river?")


def attempt(directory: Path, act: Callable[[Path], None] = try_out, *, limit: float = SECONDS) -> Outcome:
    """`try_out` in a forked process with a time limit and a limit of address space."""
    begun, (out, into) = time.monotonic(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        _report(into, directory, act)
    os.close(into)
    said, late = b"", False
    while not late and (chunk := _read(out, begun + limit - time.monotonic())) != b"":
        late = chunk is None
        said += chunk or b""
    if late:
        os.kill(child, signal.SIGKILL)
    os.close(out)
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - begun
    kind, _, words = said.decode(errors="replace").partition("\n")
    if late:
        return Outcome("HANG", f"over {limit} s", seconds)
    if not kind:
        return Outcome("DIED", f"status {status}", seconds)
    named = NAMES.findall(words.replace(str(directory), ""))
    return Outcome(kind, words, seconds, named[0] if named else "")


def _read(pipe: int, seconds: float) -> bytes | None:
    ready, _, _ = select.select([pipe], [], [], max(seconds, 0))
    return os.read(pipe, 65536) if ready else None


def _report(pipe: int, directory: Path, act: Callable[[Path], None]) -> None:
    """In the child: what `act` did, written to the pipe; never returns."""
    import warnings

    import torch

    torch.set_num_threads(1)  # a fork has none of its parent's threads
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (pages + ROOM, pages + ROOM))
        with warnings.catch_warnings(action="ignore"):
            act(directory)
        said = "loaded\n"
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is asked for
        said = f"{type(error).__name__}\n{error}"
    os.write(pipe, said.encode(errors="replace")[:8000])
    os._exit(0)


def attempts(bases: list[Path], folder: Path, *, seed: int, count: int) -> Iterator[tuple[str, Outcome]]:
    """Mutate and try `count` copies of the bases, each from its own number: what was done, and what became of it."""
    for number in range(count):
        rng, place = random.Random(f"{seed}-{number}"), folder / f"{seed}-{number}"
        shutil.copytree(rng.choice(bases), place / "model")
        done = mutate(place / "model", rng)
        yield f"seed {seed}, number {number}: {done}", attempt(place / "model")
        shutil.rmtree(place)
