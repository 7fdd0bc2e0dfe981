"""The student in the report: its tokens in the browser are torch's and `tokenizers`' own, and the view can be used."""

import copy
import json
import random
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from apt_model.dashboard.bundle import bundle
from apt_model.dashboard.report import write_report
from apt_model.demo.lesson import load_teacher, new_student, read_unseen
from apt_model.distill.stages import Stages
from apt_model.events.sinks import Guard
from apt_model.events.stages import stage_path
from apt_model.models.browser_tokenizer import _PATTERNS, browser_tokenizer
from apt_model.models.browser_weights import shape_of, tensors_of
from tests.dashboard import lessons
from tests.dashboard.conftest import Open, Watched

WORKER = {
    path.name: path.read_text("utf-8") for path in Path(str(files("apt_model.dashboard") / "worker")).glob("*.js")
}
ODD = [
    *(
        "",
        " ",
        "\n",
        "你好，世界",
        " two  spaces\n\nnew ",
        "emoji 😀👩‍👩‍👧 e\u0301 é",
        "<s> a</s>b",
        "\r\n\r\n a",
        "日本語 한국어 ру́сский",
    ),
    *("\t\u00a0x\u3000y\u0085z\ufeffw", "don't I'LL we'Ve 'ſ 12345 １２３", "a\u0000b\u200b", "▁ <0x41>", "🇨🇳🇨"),
]
ALPHABET = [*"abcdefgh  \n\t'’sSlLreVEtTdD0123，。你好世界😀é", "\u0301", "\u3000", "\r", "ſ", "<s>", "</s>", "▁"]
ROPE = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SMALL = {"vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "initializer_range": 0.2}


def texts() -> list[str]:
    dice = random.Random(0)
    return [*ODD, *("".join(dice.choices(ALPHABET, k=dice.randint(1, 30))) for _ in range(300))]


def byte_level(pattern: str | None, *, composes: bool = False, whole_first: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE, learned from the texts, that cuts words as GPT-2 or by a pattern."""
    made = Tokenizer(models.BPE(ignore_merges=whole_first))
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = pre_tokenizers.Split(Regex(pattern or ""), "isolated")
    made.pre_tokenizer = plain if pattern is None else pre_tokenizers.Sequence([split, plain])
    made.decoder = decoders.ByteLevel()
    if composes:
        made.normalizer = normalizers.NFC()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<s>", "</s>"], initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator(texts() * 2, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    patterns = {name: pattern for pattern, name in _PATTERNS.items()}
    return {
        "the Chinese demo's": load_teacher("zh")[1],
        "the English demo's": load_teacher("en")[1],
        "GPT-2's": byte_level(None),
        "Llama 3's": byte_level(patterns["llama3"], whole_first=True),
        "Qwen 2's": byte_level(patterns["qwen2"], composes=True),
    }


@pytest.fixture
def engine(browser: Any) -> Any:
    """A page with the worker's own functions, as `tools`."""
    page = browser.new_page()
    source = bundle(WORKER, "work.js").removesuffix("})();\n")
    page.evaluate(f"{source} self.tools = {{ Tokenizer, Student, choose }}; }})()")
    yield page
    page.close()


def test_the_browsers_tokenizers_are_those_of_tokenizers(engine: Any, tokenizers: dict[str, Any]) -> None:
    wanted = texts()
    for name, tokenizer in tokenizers.items():
        ids = [tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids for text in wanted]
        dice = random.Random(1)
        ids += [[dice.randrange(len(tokenizer)) for _ in range(8)] for _ in range(200)]  # bytes that are no UTF-8 too
        code = """([about, texts, ids]) => {
            const own = new tools.Tokenizer(about);
            return [texts.map((text) => own.encode(text)), ids.map((one) => own.decode(one))];
        }"""
        encoded, decoded = engine.evaluate(code, [browser_tokenizer(tokenizer), wanted, ids])
        assert encoded == ids[: len(wanted)], name
        assert decoded == [tokenizer.decode(one, skip_special_tokens=True) for one in ids], name


def eight_bit(model: nn.Module) -> nn.Module:
    """The same model with each matrix rounded to 8 bits, symmetric by row of (out, in): the reference, in torch."""
    rounded = copy.deepcopy(model).eval()
    matrices = {id(one): (name, one) for name, one in rounded.named_parameters() if one.dim() == 2}
    for name, one in matrices.values():
        rows = one.data.T if ".c_" in name else one.data  # GPT-2's are (in, out)
        scale = rows.abs().amax(dim=1, keepdim=True) / 127
        rounded_rows = torch.round(rows / scale).clamp(-127, 127) * scale
        one.data = rounded_rows.T.contiguous() if ".c_" in name else rounded_rows
    return rounded


@torch.no_grad()
def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def in_browser(engine: Any, model: Any, prompts: list[list[int]], count: int, place: Path) -> list[list[int]]:
    """The same, by the worker's engine, from a file as a run writes it."""
    save_file(tensors_of(model), place, metadata={"shape": json.dumps(shape_of(model))})
    code = """([bytes, prompts, count]) => {
        const student = new tools.Student(new Uint8Array(bytes));
        return prompts.map((prompt) => {
            student.forget();
            let logits = prompt.map((token) => student.read(token)).pop();
            return Array.from({ length: count }, () => {
                const token = tools.choose(logits, 0, 0);
                logits = student.read(token);
                return token;
            });
        });
    }"""
    found: list[list[int]] = engine.evaluate(code, [list(place.read_bytes()), prompts, count])
    return found


MODELS: dict[str, Callable[[], Any]] = {
    "a Llama with biases, shared heads and a tied embedding": lambda: LlamaForCausalLM(
        LlamaConfig(
            **SMALL,
            num_attention_heads=4,
            num_key_value_heads=2,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=True,
            rope_parameters={**ROPE, "original_max_position_embeddings": 32},
        )
    ),
    "a Llama with a head of its own, and YaRN": lambda: LlamaForCausalLM(
        LlamaConfig(
            **SMALL,
            num_attention_heads=2,
            head_dim=8,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 500.0,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        )
    ),
    "a GPT-2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=90, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2)
    ),
    "a GPT-2 with other scales": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=90,
            n_embd=32,
            n_layer=3,
            n_head=2,
            initializer_range=0.3,
            activation_function="relu",
            scale_attn_by_inverse_layer_idx=True,
            tie_word_embeddings=False,
        )
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow) if "YaRN" in one or "scales" in one else one for one in MODELS]
)
def test_the_browsers_greedy_tokens_are_those_of_torch(engine: Any, tmp_path: Path, name: str) -> None:
    model = MODELS[name]().eval()
    for parameter in (one for called, one in model.named_parameters() if "bias" in called):
        nn.init.normal_(parameter, std=0.1)
    dice = random.Random(2)
    prompts = [[dice.randrange(90) for _ in range(dice.randint(1, 9))] for _ in range(6)]
    reference = eight_bit(model)
    wanted = [greedy(reference, prompt, 12) for prompt in prompts]
    assert in_browser(engine, model, prompts, 12, tmp_path / "one.safetensors") == wanted
    assert len({token for row in wanted for token in row}) > 10, "no tokens that anything would give"


@pytest.mark.slow
def test_beginnings_of_the_english_demo_go_on_as_in_torch_and_nearly_as_in_float32(engine: Any, tmp_path: Path) -> None:
    teacher, tokenizer = load_teacher("en")
    lines = [line[:12] for some in read_unseen("en").values() for line in some][:10]
    prompts = [[1, *tokenizer.backend_tokenizer.encode(line, add_special_tokens=False).ids] for line in lines]
    reference = eight_bit(teacher)
    wanted = [greedy(reference, prompt, 30) for prompt in prompts]
    assert in_browser(engine, teacher, prompts, 30, tmp_path / "one.safetensors") == wanted
    same = 0
    for prompt in prompts:
        exact = greedy(teacher, prompt, 30)  # each token after float32's own text: one other word changes the rest
        with torch.no_grad():
            then = reference(torch.tensor([prompt + exact])).logits[0, len(prompt) - 1 : -1].argmax(-1).tolist()
        same += sum(one == other for one, other in zip(then, exact, strict=True))
    assert same / (30 * len(prompts)) > 0.95


def small_run(directory: Path) -> Path:
    """A finished lesson with an exam, and three stages of the demo's student: the one in the middle is another."""
    teacher, tokenizer = load_teacher("zh")
    student, guard = new_student(teacher), Guard()
    lessons.write(directory, lessons.lesson())
    stages = Stages(directory, student, tokenizer=tokenizer, guard=guard, total_steps=60)
    stages.begin(0)
    for step in (30, 60):
        with torch.no_grad():
            student.lm_head.weight.mul_(-1)
        stages.at_end(step)
    assert guard.failures == {}
    return directory


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    run = small_run(tmp_path_factory.mktemp("inside") / "run")
    return write_report([run], run / "report.html", with_student=True)


def written(watched: Watched) -> list[str]:
    """What each box says once all have written."""
    watched.settle()
    watched.page.wait_for_function("() => document.querySelector('.heard').textContent !== ''")
    return list(watched.page.locator(".writer .said").all_inner_texts())


def test_a_class_writes_a_beginning_and_the_student_goes_on_by_keyboard_alone(report: Path, open_page: Open) -> None:
    watched = open_page(f"{report.as_uri()}#inside", wait=False)
    field = watched.page.locator("#beginning")
    field.focus()
    assert field.input_value() == "互联网是"
    watched.page.keyboard.press("Enter")
    first, middle, last, teacher = written(watched)
    assert first == last != middle, "the head was turned around, and back"
    assert len(first) == len("互联网是") + 40
    assert teacher == "互联网是全球最大的网络。"
    heads = watched.page.locator(".writer h2").all_inner_texts()
    assert heads == ["上课前 第 0 步", "上到一半 第 30 步", "下课时 第 60 步", "教师当时怎样接"]
    assert all(
        re.search(r"40 个 token，每秒 \d+ 个", one) for one in watched.page.locator(".writer").all_inner_texts()[:3]
    )
    field.fill("好奇心")
    watched.page.keyboard.press("Tab")
    while watched.page.evaluate("document.activeElement.className") != "chip go":
        watched.page.keyboard.press("Tab")
    watched.page.keyboard.press("Enter")
    assert "教师不在这个文件里" in written(watched)[3]
    assert [url for url in watched.requests if not url.startswith(("file:", "blob:"))] == []


def test_the_text_on_the_page_is_what_torch_writes(report: Path, open_page: Open) -> None:
    teacher, tokenizer = load_teacher("zh")
    torch.manual_seed(0)
    student = eight_bit(new_student(teacher))
    ids = [1, *tokenizer.backend_tokenizer.encode("医生", add_special_tokens=False).ids]
    watched = open_page(f"{report.as_uri()}#inside", wait=False)
    watched.page.locator("#beginning").fill("医生")
    watched.page.locator(".go").click()
    new = greedy(student, ids, 40)
    assert 2 not in new
    assert written(watched)[0] == "医生" + tokenizer.decode(new, skip_special_tokens=True)


def test_writing_can_be_stopped_and_begun_anew_and_spoken_of_in_english(report: Path, open_page: Open) -> None:
    watched = open_page(f"{report.as_uri()}#inside", wait=False, width=390, height=844)
    watched.page.locator(".switch.language").click()
    watched.settle()
    watched.page.locator("#length").select_option("160")
    watched.page.locator("#warmth").fill("1")
    watched.settle()
    assert "drawn by chance" in watched.page.locator("output").inner_text()
    watched.page.locator(".go").click()
    watched.page.locator(".stop").click()
    watched.settle()
    assert (
        "Stopped." in "".join(watched.page.locator(".writer").all_inner_texts())
        or not watched.page.locator(".meter").count()
    )
    watched.page.locator(".go").click()
    watched.page.locator(".go").click()
    assert len(written(watched)[0]) > 20
    assert watched.page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_report_without_a_student_has_no_such_tab_and_no_worker(tmp_path: Path, open_page: Open) -> None:
    run = lessons.write(tmp_path / "run", lessons.lesson())
    html = write_report([run], tmp_path / "report.html").read_text("utf-8")
    assert "worker-src" not in html
    watched = open_page((tmp_path / "report.html").as_uri() + "#inside")
    assert watched.page.locator("#tab-inside").count() == 0
    assert not watched.page.locator("#view-now").get_attribute("hidden")


def test_the_file_of_the_demos_student_is_small(report: Path) -> None:
    assert stage_path(report.parent, 0).stat().st_size < 1_100_000
    assert report.stat().st_size < 6_000_000


@pytest.mark.parametrize("name", sorted(WORKER))
def test_no_module_of_the_worker_makes_code_of_text_or_asks_for_anything(name: str) -> None:
    assert re.findall(r"\beval\b|new Function|importScripts|fetch\(|XMLHttpRequest|WebSocket", WORKER[name]) == []
    assert len(WORKER[name].splitlines()) <= 300
