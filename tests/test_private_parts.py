"""One canary for each private or undocumented part of another library that we use.

A canary does with the part what we do, and looks at what we rely on. Where it fails, the message says which library in
which version, what is gone, and which files of ours need it.
"""

import asyncio
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import sacrebleu
import torch
import transformers
import uvicorn
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from tokenizers import normalizers
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from uvicorn.server import ServerState

import apt_model
from apt_model.commands.options import Command, Parser
from apt_model.dashboard import connection
from apt_model.data.folders import splits_of
from apt_model.data.rng import generator_names
from apt_model.data.streams import StreamState
from apt_model.distill.setup import trained
from apt_model.distill.students.depth import as_saved
from apt_model.errors import ConfigError, ModelError
from apt_model.generation.speed import _LiveTensors
from apt_model.models import wide_matmul
from apt_model.models.activations import ActivationRecorder
from apt_model.models.devices import accelerate_state_of_our_own
from apt_model.models.fingerprints import hash_build, hash_config
from apt_model.models.output_head import _is_hooked, forward_of
from apt_model.models.pretrained import _forget_gguf
from apt_model.models.stored_tensors import as_many_as_stored
from apt_model.models.text_part import loader_of
from tests.models.test_pretrained import write_gguf
from tests.private_uses import Canary, foreign_uses

OURS = Path(apt_model.__file__).parent


CANARIES: list[Canary] = []


def canary(library: str, promise: str, file: str, *names: str) -> Callable[[Callable[[Path], object]], None]:
    def register(check: Callable[[Path], object]) -> None:
        CANARIES.append(Canary(library=library, promise=promise, file=file, names=names, check=check))

    return register


@canary("torch", "makes a sharded model the root of its layers when asked to", "models/sharding.py", "_lazy_init")
def _(directory: Path) -> None:
    store = torch.distributed.FileStore(str(directory / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = nn.Sequential(nn.Linear(2, 2))
        mesh = init_device_mesh("cpu", (1,))
        for unit in (model[0], model):
            fully_shard(unit, mesh=mesh)
        fully_shard.state(model)._lazy_init()  # type: ignore[attr-defined]
        model[0].unshard()  # fails where no root was found
    finally:
        torch.distributed.destroy_process_group()


def tiny_qwen(**more: Any) -> Any:
    sizes = {"vocab_size": 258, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes, **heads, **more)).eval()


@canary("python", "lists a parser's flags and its commands", "commands/options.py", "_actions", "_SubParsersAction")
def _(_: Path) -> None:
    parser = Parser(prog="school", exit_on_error=False)
    command = parser.add_subparsers(parser_class=Command).add_parser("learn")
    command.add_argument("--slowly", action="store_true")
    assert parser.commands() == {"learn": command}
    assert command.flags() == {"-h": False, "--help": False, "--slowly": False}
    with pytest.raises(ConfigError, match="did you mean --slowly"):
        parser.parse_args(["learn", "--slowy"])


@canary("python", "asks for a flag by its attribute", "commands/options.py", "required")
def _(_: Path) -> None:
    command = Command(prog="learn")
    command.add_argument("--slowly", required=True)
    assert command.required_later() == ["--slowly"]
    assert command.parse_args([]).slowly is None


@canary("python", "lists a parser's flags by group", "commands/options.py", "_action_groups", "_group_actions")
def _(_: Path) -> None:
    command = Command(prog="learn")
    pace = command.add_argument_group("pace")
    slowly = pace.add_mutually_exclusive_group().add_argument("--slowly", action="store_true")
    assert command.groups()[-1] == ("pace", [slowly])


@canary(
    "accelerate", "keeps all state in a _shared_state dict that can be emptied", "models/devices.py", "_shared_state"
)
def _(_: Path) -> None:
    with accelerate_state_of_our_own():  # so that this test leaves none
        Accelerator(cpu=True, mixed_precision="bf16")
        states: list[Any] = [PartialState(), AcceleratorState(), GradientState()]
        for state in states:
            state.left_here = True
        with accelerate_state_of_our_own():
            fresh = Accelerator(cpu=True, mixed_precision="no")
            assert fresh.mixed_precision == "no"
            assert not any(hasattr(state, "left_here") for state in (PartialState(), fresh.state, GradientState()))
        assert all(hasattr(kind(), "left_here") for kind in (PartialState, AcceleratorState, GradientState))
        assert AcceleratorState().mixed_precision == "bf16"


@canary("accelerate", "keeps the wrapped forward as _original_forward", "distill/setup.py",
        "_original_forward", "forward")  # fmt: skip
def _(_: Path) -> None:
    student, row = nn.Linear(4, 4), torch.ones(1, 4)
    with accelerate_state_of_our_own(), trained(student):
        Accelerator(cpu=True, mixed_precision="bf16").prepare_model(student)
        assert {"forward", "_original_forward"} <= set(vars(student))
    assert not {"forward", "_original_forward"} & set(vars(student))
    assert torch.equal(student(row), nn.functional.linear(row, student.weight, student.bias))


@canary("transformers", "lists the model types that it has a causal language model of", "models/loading.py",
        "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")  # fmt: skip
def _(_: Path) -> None:
    assert {"llama", "gpt2", "mamba", "bert"} <= MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys()
    assert MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys().isdisjoint({"t5", "modernbert", "distilbert"})


@canary("transformers", "maps configs of each kind of model to its class", "models/text_part.py",
        "MODEL_FOR_CAUSAL_LM_MAPPING", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING",
        "MODEL_FOR_MULTIMODAL_LM_MAPPING")  # fmt: skip
def _(_: Path) -> None:
    llava = transformers.LlavaConfig()
    assert loader_of(llava) is transformers.AutoModelForImageTextToText
    assert loader_of(llava.get_text_config()) is transformers.AutoModelForCausalLM


@canary("tokenizers", "gives the steps of a tokenizer as JSON to pickle", "models/text_growth.py",
        "__getstate__")  # fmt: skip
def _(_: Path) -> None:
    steps = normalizers.Sequence([normalizers.NFKD(), normalizers.Replace("a", "bb")])
    replaces = {"type": "Replace", "pattern": {"String": "a"}, "content": "bb"}
    assert json.loads(steps.__getstate__()) == {"type": "Sequence", "normalizers": [{"type": "NFKD"}, replaces]}


@canary("transformers", "keeps a config's attention as _attn_implementation", "distill/students/depth.py",
        "_attn_implementation")  # fmt: skip
def _(_: Path) -> None:
    eager = transformers.AutoModelForCausalLM.from_config(tiny_qwen().config, attn_implementation="eager").config
    assert transformers.AutoModelForCausalLM.from_config(as_saved(eager)).config._attn_implementation == "eager"


@canary("torch", "calls these hooks for each module and parameter that a module is given", "models/stored_tensors.py",
        "register_module_module_registration_hook", "register_module_parameter_registration_hook")  # fmt: skip
def _(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with as_many_as_stored(tmp_path, {}):
        nn.Sequential(*(nn.Linear(1, 1) for _ in range(300)))
    with pytest.raises(ModelError, match="more than 1000 modules"), as_many_as_stored(tmp_path, {}):
        nn.Sequential(*(nn.Linear(1, 1) for _ in range(400)))
    with pytest.raises(ModelError, match="numbers"), as_many_as_stored(tmp_path, {}), torch.device("meta"):
        nn.Linear(10_000, 10_000)


@canary("sacrebleu", "makes a corpus's score from the sum of its lines' statistics",
        "generation/answer_scores.py", "_extract_corpus_statistics", "_compute_score_from_stats")  # fmt: skip
def _(_: Path) -> None:
    answers, references = ["the cat sat down", "人工智能很好"], ["the cat sat on it", "人工智能非常好"]
    for metric in (sacrebleu.CHRF(), sacrebleu.BLEU(tokenize="zh"), sacrebleu.BLEU(tokenize="13a")):
        whole = metric.corpus_score(answers, [references]).score
        lines = np.array(metric._extract_corpus_statistics(answers, [references]), dtype=np.float64)
        assert len(lines) == len(answers)
        assert metric._compute_score_from_stats(list(lines.sum(axis=0))).score == pytest.approx(whole)
        first = metric.corpus_score(answers[:1] * 2, [references[:1] * 2]).score  # a resample: the first line twice
        assert metric._compute_score_from_stats(list(2 * lines[0])).score == pytest.approx(first)


@canary("torch", "has TorchDispatchMode see every operation", "generation/speed.py", "_python_dispatch")
def _(_: Path) -> None:
    live = _LiveTensors()
    with live:
        held = torch.ones(1000) + torch.ones(1000)
        assert live.now == held.nbytes
        del held
    assert (live.now, live.peak) == (0, 3 * 4000)


@canary("torch", "keeps a module's hooks under these names", "models/output_head.py",
        "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")  # fmt: skip
def _(_: Path) -> None:
    linear = nn.Linear(2, 2)
    for when in ("forward_hook", "full_backward_hook", "full_backward_pre_hook"):
        assert not _is_hooked(linear)
        handle = getattr(linear, f"register_{when}")(lambda *_: None)
        assert _is_hooked(linear), when
        handle.remove()


@canary("torch", "calls a forward put on a module itself, with its hooks", "models/output_head.py", "forward")
def _(_: Path) -> None:
    linear, seen = nn.Linear(2, 2), []
    linear.register_forward_hook(lambda *_: seen.append("hook"))
    with forward_of(linear, lambda inputs: (seen.append("forward"), inputs)[1]):
        assert torch.equal(linear(torch.ones(1, 2)), torch.ones(1, 2))
    assert seen == ["forward", "hook"]
    assert "forward" not in vars(linear)


@canary("torch", "has oneDNN multiply float32 exactly under fp32_precision=bf16 where there is no AMX",
        "models/wide_matmul.py", "mkldnn", "fp32_precision")  # fmt: skip
def _(_: Path) -> None:
    assert wide_matmul.PRECISION.fp32_precision == wide_matmul.UNSET, "nobody has set it, and it is not 'none'"
    with wide_matmul._onednn():
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"  # type: ignore[attr-defined]
    assert wide_matmul.PRECISION.fp32_precision == wide_matmul.UNSET
    if torch.backends.cpu.get_cpu_capability() == "AVX512" and wide_matmul.is_amd():
        assert wide_matmul._is_exact(), "digits are lost: wide_matmul=auto leaves products to MKL now, a run is slower"


@canary("transformers", "hands each layer's query, key and value to the function under attn_implementation",
        "models/activations.py", "ALL_ATTENTION_FUNCTIONS", "_attn_implementation")  # fmt: skip
def _(_: Path) -> None:
    model, own = tiny_qwen(attn_implementation="sdpa"), ALL_ATTENTION_FUNCTIONS["sdpa"]
    recorder, ids = ActivationRecorder(model, "teacher", states=False, attention=True), torch.arange(5).unsqueeze(0)
    with recorder.recording() as outer:
        somebodys = ALL_ATTENTION_FUNCTIONS["sdpa"]
        with recorder.recording() as inner:
            model(input_ids=ids)
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is somebodys
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is own
    assert {layer: tuple(seen.query.shape) for layer, seen in inner.attended.items()} == dict.fromkeys(
        (1, 2), (1, 4, 5, 8)
    )
    assert outer.attended.keys() == inner.attended.keys()


@canary("datasets", "reads the configs of a data set's card, and finds the files of their patterns", "data/folders.py",
        "MetadataConfigs")  # fmt: skip
def _(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: one\n  data_files: a.txt\n---\n")
    assert splits_of(tmp_path, lambda *_, **__: None) == {"train": [tmp_path / "a.txt"]}


@canary("transformers", "says where a config was loaded from under _name_or_path alone", "models/fingerprints.py",
        "_name_or_path")  # fmt: skip
def _(tmp_path: Path) -> None:
    model = tiny_qwen()
    found = set()
    for place in (tmp_path / "one", tmp_path / "two"):
        model.save_pretrained(place)
        found.add(hash_config(transformers.AutoConfig.from_pretrained(place)))
    assert len(found) == 1, "the same teacher elsewhere is taken for another one, and its cache is refused"


@canary("transformers", "saves a model read from GGUF once hf_quantizer and quantization_config are gone",
        "models/pretrained.py", "hf_quantizer", "is_quantized")  # fmt: skip
def _(tmp_path: Path) -> None:
    qwen = tiny_qwen()
    write_gguf(tmp_path / "qwen.gguf", qwen)
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="qwen.gguf", dtype=torch.float32)
    _forget_gguf(read)
    read.save_pretrained(tmp_path / "saved")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    for one, same in zip(again.parameters(), qwen.parameters(), strict=True):
        torch.testing.assert_close(one, same)


@canary("trackio", "counts a run's steps in _next_step", "plugins/trackers.py", "_next_step")
def _(_: Path) -> None:
    run = pytest.importorskip("trackio.run")  # what a resumed run writes is in tests/plugins/test_trackers.py
    assert "_next_step" in Path(run.__file__).read_text("utf-8")


async def _answered(serve: Callable[..., Any], path: Path, request: bytes) -> bytes:
    """What a server of H11Protocol sends until it closes."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(3 * connection.REQUEST_SECONDS)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"hi"})

    config = uvicorn.Config(app, http=serve, ws="none", lifespan="off", log_config=None, timeout_keep_alive=60)
    state = ServerState()
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: serve(config=config, server_state=state, app_state={}), path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request)
    found = await asyncio.wait_for(reader.read(), 5)  # it closes, told that the answer is complete
    writer.close()
    server.close()
    assert not state.connections
    return found


@canary(
    "uvicorn", "tells H11Protocol of connections, data and complete answers", "dashboard/connection.py", "H11Protocol"
)
def _(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "REQUEST_SECONDS", 0.05)
        patch.setattr(connection, "STALLED_SECONDS", 0.3)
        silent = asyncio.run(_answered(connection.Connection, tmp_path / "silent", b"GET / HT"))
        assert silent.startswith(b"HTTP/1.1 408"), "a request that does not come is waited for"
        slow = asyncio.run(_answered(connection.Connection, tmp_path / "slow", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"))
        assert slow.startswith(b"HTTP/1.1 200"), "a request that has come is cut off, or its end is not told of"


@canary("transformers", "names the attention that a model uses", "models/fingerprints.py", "_attn_implementation")
def _(_: Path) -> None:
    builds = {how: hash_build(tiny_qwen(attn_implementation=how)) for how in ("eager", "sdpa")}
    assert len(set(builds.values())) == 2


@canary(
    "transformers",
    "lists the attentions and experts that need no hub, and names them in a config under these keys",
    "models/directory.py",
    "_attn_implementation",
    "_experts_implementation",
    "ALL_ATTENTION_FUNCTIONS",
    "ALL_EXPERTS_FUNCTIONS",
)
def _(_: Path) -> None:
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    assert "sdpa" in set(ALL_ATTENTION_FUNCTIONS)
    assert "grouped_mm" in set(ALL_EXPERTS_FUNCTIONS)
    config = tiny_qwen(attn_implementation="eager").config
    assert config._attn_implementation == "eager"
    assert hasattr(config, "_experts_implementation")


@canary("torch", "keeps the workers that live on as _iterator", "data/holdings.py", "_iterator")
def _(_: Path) -> None:
    loader = DataLoader([1, 2], num_workers=1, persistent_workers=True, multiprocessing_context="fork")
    assert list(loader) == [1, 2]
    assert loader._iterator is not None
    assert generator_names(loader) == []


@canary(
    "datasets",
    "keeps the iterables of a stream as _ex_iterable, one within the other, and its format as _formatting",
    "data/streams.py",
    "_ex_iterable",
    "_formatting",
)
def _(_: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["a", "b"]}).to_iterable_dataset(num_shards=2)
    exact = rows.map(lambda row: {"text": row["text"] * 2}).skip(1)
    assert StreamState(exact).why_not is None
    changed: list[Any] = []
    assert StreamState(exact.map(changed.append)).why_not == ("notice.stream_function", {"name": "list.append"})
    assert StreamState(rows.shuffle(1, buffer_size=7)).why_not == ("notice.stream_shuffled", {"rows": 7})
    assert StreamState(rows.with_format("arrow")).why_not == ("notice.stream_kind", {"name": "with_format(arrow)"})


@canary("uvicorn", "calls startup, on_tick and shutdown of a Server", "dashboard/server.py", "uvicorn.Server")
def _(_: Path) -> None:
    called: list[str] = []

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            called.append("startup")
            self.servers = []
            self.started = True

        async def on_tick(self, counter: int) -> bool:
            called.append("on_tick")
            return await super().on_tick(counter) or counter == 0

        async def shutdown(self, sockets: Any = None) -> None:
            called.append("shutdown")

    asyncio.run(Server(uvicorn.Config(lambda scope: None, lifespan="off", log_config=None)).serve(sockets=[]))
    assert called == ["startup", "on_tick", "shutdown"]


@pytest.mark.parametrize("one", CANARIES, ids=lambda one: f"{one.library}-{one.names[0]}")
def test_another_librarys_private_part_does_what_we_rely_on(one: Canary, tmp_path: Path) -> None:
    one.listen(tmp_path)


def test_a_canary_says_which_upgrade_broke_what_and_where_we_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(AcceleratorState, "_shared_state")
    (one,) = [one for one in CANARIES if one.names == ("_shared_state",)]
    told = rf"accelerate {version('accelerate')} no longer keeps.*: apt_model/models/devices\.py relies on it"
    with pytest.raises(pytest.fail.Exception, match=told):
        one.listen(tmp_path)


def test_every_use_of_a_private_part_has_a_canary_and_every_canary_a_use() -> None:
    watched = {(one.file, name) for one in CANARIES for name in one.names}
    assert foreign_uses(OURS) == watched


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import rich\nrich.console._buffer.clear()", "_buffer"),
        ("def f(model):\n    model._cache = None", "_cache"),
        ("from torch._inductor import config", "_inductor"),
        ("from peft.tuners.lora import model", "model"),
        ("def f(model):\n    return getattr(model, '_hidden', None)", "_hidden"),
        ("import torch\ntorch.add = print", "add"),
        ("def f(tokenizer):\n    return tokenizer.__getstate__()", "__getstate__"),
    ],
)
def test_a_new_use_is_found(line: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text(line, encoding="utf-8")
    assert foreign_uses(tmp_path) == {("new.py", found)}
