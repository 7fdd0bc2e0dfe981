"""Five data sets in the forms in which people publish them, from the file to a student that answers in `talk`.

Three hold chats and two tool calls; what stands in them is made up. The student learns the answers by heart, from their
labels, and must then say them when it is asked on the command line, and end there.
"""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from apt_model.cli import main
from tests.chats import CHATML, byte_level
from tests.data.test_chat import TEMPLATES

FACTS = (("A river?", "The Loire."), ("A lake?", "Como."), ("A hill?", "Box Hill."), ("A town?", "Bath."))
CALLS = (("Rain in Bath?", "Bath"), ("Rain in Como?", "Como"), ("Rain in Rome?", "Rome"))
WEATHER = {
    "name": "weather",
    "description": "of a town",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}
HERMES_SYSTEM = f"You may call functions. <tools> {json.dumps({'type': 'function', 'function': WEATHER})} </tools>"


def as_ultrachat(path: Path) -> Path:
    """Parquet with messages, and the prompt once more, as HuggingFaceH4/ultrachat_200k; splits by file name."""
    rows = [
        {
            "prompt": question,
            "prompt_id": f"{number:064x}",
            "messages": [{"content": question, "role": "user"}, {"content": answer, "role": "assistant"}],
        }
        for number, (question, answer) in enumerate(FACTS)
    ]
    path.mkdir()
    datasets.Dataset.from_list(rows).to_parquet(path / "train_sft-00000-of-00001.parquet")
    return path


def as_openhermes(path: Path) -> Path:
    """A JSON array of ShareGPT conversations with metadata, some of it null, as teknium/OpenHermes-2.5."""
    rows = [
        {
            "custom_instruction": None,
            "topic": "geography" if number % 2 else None,
            "conversations": [
                {"from": "human", "value": question, "weight": None},
                {"from": "gpt", "value": answer, "weight": None},
            ],
            "source": "made_up",
            "idx": str(number),
        }
        for number, (question, answer) in enumerate(FACTS)
    ]
    path.with_suffix(".json").write_text(json.dumps(rows, indent=2))
    return path.with_suffix(".json")


def as_alpaca(path: Path) -> Path:
    """A JSON array of instruction, input and output, as yahma/alpaca-cleaned and LLaMA-Factory's own."""
    rows = [{"output": answer, "input": "", "instruction": question} for question, answer in FACTS]
    path.with_suffix(".json").write_text(json.dumps(rows))
    return path.with_suffix(".json")


def as_glaive(path: Path) -> Path:
    """ShareGPT with function_call and observation, tools as JSON in a string, as LLaMA-Factory's glaive_toolcall."""
    rows = [
        {
            "conversations": [
                {"from": "human", "value": question},
                {"from": "function_call", "value": json.dumps({"name": "weather", "arguments": {"town": town}})},
                {"from": "observation", "value": json.dumps({"rain": False})},
                {"from": "gpt", "value": f"No rain in {town}."},
            ],
            "tools": json.dumps([WEATHER]),
        }
        for question, town in CALLS
    ]
    path.with_suffix(".json").write_text(json.dumps(rows))
    return path.with_suffix(".json")


def as_hermes_calls(path: Path) -> Path:
    """Lines of ShareGPT whose system turn has the tools, and whose calls are words, as hermes-function-calling-v1."""
    rows = [
        {
            "id": f"{number}",
            "conversations": [
                {"from": "system", "value": HERMES_SYSTEM},
                {"from": "human", "value": question},
                {
                    "from": "gpt",
                    "value": f'<tool_call>\n{{"arguments": {{"town": "{town}"}}, "name": "weather"}}\n</tool_call>',
                },
                {"from": "tool", "value": '<tool_response>\n{"rain": false}\n</tool_response>'},
                {"from": "gpt", "value": f"No rain in {town}."},
            ],
            "category": "Weather",
            "task": "made up",
        }
        for number, (question, town) in enumerate(CALLS)
    ]
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.with_suffix(".jsonl")


QWEN = (TEMPLATES / "qwen2_5.jinja").read_text("utf-8")
ASKED = {"glaive": ["--tools", "tools.json"], "hermes": ["--system", HERMES_SYSTEM]}  # as the student was taught
FORMATS: dict[str, tuple[Callable[[Path], Path], str, list[tuple[str, str]]]] = {
    "ultrachat": (as_ultrachat, CHATML, list(FACTS)),
    "openhermes": (as_openhermes, QWEN, list(FACTS)),
    "alpaca": (as_alpaca, (TEMPLATES / "llama3.jinja").read_text("utf-8"), list(FACTS)),
    "glaive": (as_glaive, QWEN, [(question, f'"town": "{town}"') for question, town in CALLS]),
    "hermes": (as_hermes_calls, CHATML, [(question, f'"town": "{town}"') for question, town in CALLS]),
}


@pytest.mark.parametrize(
    "form", ["ultrachat", *(pytest.param(form, marks=pytest.mark.slow) for form in [*FORMATS][1:])]
)
def test_a_student_taught_from_a_published_form_answers_in_talk(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tools.json").write_text(json.dumps([WEATHER]))
    write, template, known = FORMATS[form]
    data = write(tmp_path / "data")
    tokenizer = byte_level(template)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|eot_id|>", "<|start_header_id|>", "<tool_call>"]})
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    teacher = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, **sizes, **ends))
    teacher.save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    words = f"""distill --teacher {tmp_path}/teacher --student layers=2 --data {data} --out {tmp_path}/run --device cpu
        --lang en --alpha 0 --learning-rate 0.005 --num-epochs {400 if form in ASKED else 150} --batch-size 4
        --max-length 1024 --no-show-samples --warmup-ratio 0 --no-doctor"""
    assert main(words.split()) == 0, capsys.readouterr().err
    capsys.readouterr()
    asked = ["talk", f"{tmp_path}/run", *[question for question, _ in known], "--lang", "en", *ASKED.get(form, [])]
    assert main([*asked, "--max-new-tokens", "100"]) == 0
    said = capsys.readouterr().out
    for _, answer in known:
        assert answer in said
    assert not any(end in said for end in ("<|im_end|>", "<|eot_id|>", "</s>"))
    assert form in ASKED or said.splitlines() == [answer for _, answer in known]
