"""Names that people type from other trainers: taken, or answered with ours in one line."""

import argparse
import json
import string
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from apt_model.cli import main, make_parser
from apt_model.commands.flags import flag_of
from apt_model.commands.options import read_settings
from apt_model.config import LessonConfig, settings
from apt_model.config.names import IN_THE_CALL, NAMES
from apt_model.data.dataset import load_dataset
from apt_model.errors import ConfigError
from apt_model.events.records import StepDone
from apt_model.events.runfile import CONFIG, read_events
from apt_model.models.pretrained import save_model
from apt_model.plugins.given import Given

NEEDED = ["--teacher", "t", "--student", "s", "--data", "d", "--out", "o"]


def parsed(*words: str, needed: list[str] = NEEDED) -> dict[str, Any]:
    """Flags and settings that `distill` gets of these words."""
    arguments = make_parser().parse_args(["distill", *needed, *words])
    return {**vars(arguments), **read_settings(arguments).to_dict()}


TAKEN: list[tuple[str, dict[str, Any]]] = [
    ("--per_device_train_batch_size 4", {"batch_size": 4}),
    ("--per-device-train-batch-size=4", {"batch_size": 4}),
    ("--micro_batch_size 2", {"batch_size": 2}),
    ("--num_train_epochs 2", {"num_epochs": 2}),
    ("--num_train_epochs 3.0", {"num_epochs": 3}),
    ("--epochs 5", {"num_epochs": 5}),
    ("--lr 3e-4", {"learning_rate": 3e-4}),
    ("--learning_rate=1e-3", {"learning_rate": 1e-3}),
    ("--bf16", {"mixed_precision": "bf16"}),
    ("--bf16 True", {"mixed_precision": "bf16"}),
    ("--bf16=false", {"mixed_precision": "no"}),
    ("--fp16 --bf16 False", {"mixed_precision": "fp16"}),
    ("--max_seq_length 256", {"max_length": 256}),
    ("--max_seq_len 256", {"max_length": 256}),
    ("--cutoff_len 256", {"max_length": 256}),
    ("--sequence_len 256", {"max_length": 256}),
    ("--warmup_ratio 0.1", {"warmup_ratio": 0.1}),
    ("--warmup_steps 0", {"warmup_ratio": 0.0}),
    ("--warmup_steps 0 --warmup_ratio 0.2", {"warmup_ratio": 0.2}),
    ("--lr_scheduler_type linear", {"lr_scheduler_type": "linear"}),
    ("--lr_scheduler_type constant", {"lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.0}),
    ("--gradient_accumulation_steps 8", {"gradient_accumulation_steps": 8}),
    ("--gradient_checkpointing False", {}),
    ("--max_grad_norm 0", {"max_grad_norm": None}),
    ("--max_steps -1", {"max_steps": None}),
    ("--max_steps 9", {"max_steps": 9}),
    ("--report_to none", {"report_to": ()}),
    ("--report_to wandb tensorboard", {"report_to": ("wandb", "tensorboard")}),
    ("--seed 3", {"seed": 3}),
    ("--save_strategy epoch --save_steps 7", {"save_steps": 7}),
    ("--eval_strategy epoch", {}),
    ("--dataset_train_split test", {"split": "test"}),
    ("--dataset_text_field body", {"text_column": "body"}),
    ("--packing True", {"packing": True}),
    ("--packing false", {"packing": False}),
    ("--no_packing", {"packing": False}),
    ("--validation_file v.jsonl", {"validation_data": ["v.jsonl"]}),
    ("--val_size 0.1", {"validation_split": 0.1}),
    ("--use_peft", {"lora": ""}),
    ("--use_peft False", {"lora": None}),
    ("--use_peft --lora_r 8 --lora_alpha 16 --lora_target_modules q_proj v_proj",
     {"lora": "r=8,alpha=16,target=q_proj+v_proj"}),
    ("--lora_target_modules all-linear", {"lora": "target=all-linear"}),
    ("--lmbda 0.5", {"on_policy": 0.5}),
    ("--kd_ratio 0.5", {"alpha": 0.5, "beta": 0.5}),
    ("--kd_temperature 2", {"temperature": 2.0}),
    ("--resume_from_checkpoint True", {"resume": True}),
    ("--do_train --do_eval", {}),
    ("--overwrite_output_dir False", {}),
    ("--torch_dtype float32", {}),
    ("--attn_implementation sdpa", {}),
    ("--optim adamw_torch", {}),
    ("--push_to_hub False", {}),
    ("--no_show_samples --show_diff", {"show_samples": False, "show_diff": True}),
    ("--show-diff=no", {"show_diff": False}),
    ("--weight_decay 0", {"weight_decay": 0.0}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "meant"), TAKEN, ids=[words for words, _ in TAKEN])
def test_a_name_that_means_what_ours_means_is_taken(words: str, meant: dict[str, Any]) -> None:
    usual, found = parsed(), parsed(*words.split())
    ignored = {"command", "file_settings"}
    assert {k: v for k, v in found.items() if k not in ignored} == {
        k: v for k, v in usual.items() if k not in ignored
    } | meant


MODELS = [
    ("teacher_model_name_or_path", "model_name_or_path", "dataset_name", "output_dir"),
    ("teacher-model-name-or-path", "student_model_name_or_path", "train_file", "output-dir"),
    ("teacher_name_or_path", "base_model", "dataset", "output"),
]


@pytest.mark.parametrize("names", MODELS)
def test_models_data_and_folder_can_be_named_as_elsewhere(names: tuple[str, ...]) -> None:
    found = parsed(
        *(word for name, value in zip(names, "TSDO", strict=True) for word in (f"--{name}", value)), needed=[]
    )
    assert [found[key] for key in ("teacher", "student", "data", "out")] == ["T", "S", ["D"], "O"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--optim sgd", "--optim 'sgd': not here; the optimizer is AdamW"),
        ("--warmup_steps 100", "--warmup-ratio is the share of the steps"),
        ("--gradient_checkpointing", "a smaller --batch-size with --gradient-accumulation-steps"),
        ("--logging_steps 10", "--sample-frequency says how often a card is shown"),
        ("--save_strategy no", "every --save-steps steps"),
        ("--report_to all", "--report-to takes the names of trackers"),
        ("--eval_split validation", "--validation-data takes files"),
        ("--overwrite_output_dir", "--resume continues it, another --out begins a new one"),
        ("--resume_from_checkpoint run/checkpoints/step-1", "--resume continues the run in --out"),
        ("--torch_dtype bfloat16", "--teacher-dtype is the teacher's"),
        ("--attn_implementation flash_attention_2", "--attn-implementation 'flash_attention_2': not here"),
        ("--deepspeed ds.json", "--deepspeed 'ds.json': not here"),
        ("--fsdp full_shard", "--fsdp is none, student, teacher or both"),
        ("--push_to_hub", "RUN/student"),
        ("--hub_model_id me/mine", "--hub-model-id 'me/mine': nothing is uploaded"),
        ("--num_train_epochs 0.5", "--max-steps stops within one"),
        ("--epochs 2 --num-epochs 3", "--epochs and --num-epochs are one setting here, and were given twice"),
        ("--fp16 --bf16", "--fp16 and --bf16 are one setting here"),
        ("--use_peft False --lora_r 8", "--use-peft and --lora-r are one setting here"),
        ("--lmbda 0.5 --beta 0.5", "--beta is the labels' weight here, and TRL's β is our --mixture"),
        ("--max_seq_lenght 9", "did you mean --max-length?"),
        ("--num_epoch 9", "did you mean --num-epochs?"),
        ("--temprature 9", "did you mean --temperature?"),
        ("--no_such_thing_at_all", "see apt-model distill --help-all"),
        ("--num_train_epochs", "--num-train-epochs: expected a value"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_answered_in_one_line(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distill", *NEEDED, *words.split()]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert (shown.out, shown.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["", " 1", " x", "=True"])
def test_every_name_of_the_table_is_taken_or_answered(name: str, value: str) -> None:
    mine = {"--teacher": "teacher", "--student": "student", "--data": "data", "--out": "out"}
    needed = [word for flag, key in mine.items() if NAMES[name].ours != key for word in (flag, "m")]
    try:
        parsed(*f"--{name}{value}".split(), needed=needed)
    except ConfigError as error:
        said = str(error)
        assert "\n" not in said
        about = {flag_of(name), flag_of(NAMES[name].ours or name), NAMES[name].ours or name}
        assert any(one in said for one in about), said


def test_every_name_leads_to_one_of_ours_and_every_answer_names_only_ours() -> None:
    keys = {key for _, key, _ in settings()}
    flags = make_parser().commands()["distill"].flags()
    for name, meant in NAMES.items():
        assert not meant.ours or meant.ours in keys or flag_of(meant.ours) in flags, name
        assert meant.ours == name or name not in keys, f"{name} is ours and leads to {meant.ours}"
        for _, field, _, _ in string.Formatter().parse(meant.answer):
            assert field is None or field in keys or flag_of(field) in flags, (name, field)
    assert set(IN_THE_CALL) >= {meant.ours for meant in NAMES.values() if meant.ours} - keys


def test_another_command_says_where_our_name_lacks() -> None:
    with pytest.raises(ConfigError, match="--output-dir: our name is --out, and `apt-model talk` has no such flag"):
        make_parser().parse_args(["talk", "run", "--output_dir", "x"])
    found = make_parser().parse_args(["evaluate", "--dataset_name", "d.jsonl", "--max_seq_length", "9", "run"])
    assert (found.model, found.data, found.max_length) == ("run", ["d.jsonl"], 9)


FILES = {
    "lesson.yaml": "base-model: s\nteacher: t\ndatasets: [d.jsonl]\noutput_dir: o\nlearning_rate: 1e-4\n"
    "micro_batch_size: 2\nmixed_precision: no\nshow_diff: yes\nreport_to: none\nbf16: off\npacking: on\n"
    "kd_alpha: 0.9\n",
    "lesson.toml": 'base_model = "s"\nteacher = "t"\ndatasets = ["d.jsonl"]\noutput_dir = "o"\nlearning_rate = 1e-4\n'
    "micro_batch_size = 2\nshow_diff = true\nreport_to = []\npacking = true\nkd_alpha = 0.9\n",
    "lesson.json": '{"base_model": "s", "teacher": "t", "datasets": ["d.jsonl"], "output_dir": "o", "lr": 1e-4, '
    '"micro_batch_size": 2, "show_diff": true, "report_to": "none", "packing": true, "kd_alpha": 0.9}',
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_names_models_data_and_settings_and_what_is_typed_wins(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(FILES[name], encoding="utf-8")
    found = parsed("--config", name, needed=[])
    meant = {"teacher": "t", "student": "s", "data": ["d.jsonl"], "out": "o", "learning_rate": 1e-4, "batch_size": 2}
    meant |= {"mixed_precision": "no", "show_diff": True, "report_to": (), "packing": True, "alpha": 0.9, "beta": 0.1}
    assert {key: found[key] for key in meant} == meant
    typed = parsed("--config", name, "--data", "e", "--per_device_train_batch_size", "8", "--beta", "0.5", needed=[])
    assert (typed["data"], typed["batch_size"], typed["alpha"], typed["teacher"]) == (["e"], 8, 0.5, "t")
    for off in (["--packing", "false"], ["--no-packing"]):
        assert parsed("--config", name, *off, needed=[])["packing"] is False


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "temperature: 2\ntemperature: 3\n", "temperature stands in it twice"),
        ("a.yaml", "max-steps: 2\nmax_steps: 3\n", "has a key twice, with a dash and with an underscore"),
        ("a.json", '{"seed": 1, "seed": 2}', "seed stands in it twice"),
        ("a.toml", "seed = 1\nseed = 2\n", "is not valid TOML"),
        ("a.yaml", "distillation:\n  temperature: 2.0\n  alpha: 0.5\n", "got distillation with temperature, alpha"),
        ("a.yaml", "datasets:\n- path: x\n  type: alpaca\n", "data and validation_data take files"),
        ("a.yaml", "optim: sgd\n", "optim 'sgd': not here; the optimizer is AdamW"),
        ("a.yaml", "temprature: 2\n", "unknown key 'temprature' (did you mean 'temperature'?)"),
        ("a.yaml", "max_seq_lenght: 2\n", "did you mean 'max_length'?"),
        ("a.yaml", "- 1\n", "has no keys"),
        ("a.yaml", "a: [", "is not valid YAML"),
        ("a.yaml", "a: !!python/object:os.system x", "is not valid YAML"),
        ("a.json", "{", "is not valid JSON"),
        ("a.yaml", "stage: dpo\n", "stage 'dpo': this trains by distillation"),
    ],
)
def test_a_file_that_cannot_be_taken_is_one_line(
    name: str, text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(text, encoding="utf-8")
    assert main(["distill", *NEEDED, "--config", name]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words", "meant"),
    [
        ("max_length: 010\n", [], {"max_length": 10}),  # YAML 1.2: a zero in front makes no octal number
        ("max_length: 0o20\n", [], {"max_length": 16}),
        ("learning_rate: .5e-4\nseed: +3\n", [], {"learning_rate": 5e-5, "seed": 3}),
        ("columns: {prompt: ask, completion: reply}\n", [], {"columns": {"prompt": "ask", "completion": "reply"}}),
        ("lora: {r: 4, target: [q_proj, v_proj]}\n", [], {"lora": "r=4,target=q_proj+v_proj"}),
        ("lora: true\n", [], {"lora": ""}),
        ("lora: false\n", [], {"lora": None}),
        ("student: {layers: 2, hidden: 32}\n", [], {"student": "layers=2,hidden=32"}),
        ("bf16: true\n", ["--bf16", "false"], {"mixed_precision": "no"}),
        ("device: cpu\n", ["--use_cpu=False"], {"device": "auto"}),
        ("mixed_precision: fp16\n", ["--bf16", "false"], {"mixed_precision": "fp16"}),
        ("lora: r=16,alpha=32\n", ["--lora_alpha", "4"], {"lora": "r=16,alpha=4"}),
        ("lora_r: 16\n", ["--lora", "alpha=4"], {"lora": "alpha=4"}),
        ("text_column: a\n", ["--columns", "text=b"], {"text_column": None, "columns": {"text": "b"}}),
        ("columns: {prompt: a, completion: b}\n", ["--columns", "text=c"], {"columns": {"text": "c"}}),
        ("data: [c, d]\n", ["--data", "a", "--data", "b"], {"data": ["b"], "overruled": ["a"]}),
        ("data: [c, d]\n", ["--data", "b"], {"data": ["b"], "overruled": []}),
        ("", ["--data", "d", "--columns", "prompt=a", "--columns", "completion=b"],
         {"columns": {"prompt": "a", "completion": "b"}}),
    ],
)  # fmt: skip
def test_a_file_means_what_it_says_and_nothing_typed_is_lost(
    text: str, words: list[str], meant: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "lesson.yaml"
    file.write_text(text + ("" if "data" in text + str(words) else "data: d\n"), encoding="utf-8")
    needed = ["--teacher", "t", "--out", "o", *([] if "student" in text else ["--student", "s"])]
    found = parsed("--config", str(file), *words, needed=needed)
    assert {key: found[key] for key in meant} == meant


@pytest.mark.parametrize("text", ["max_length: 12:30:45\n", "max_length: 1_024\n", "help: true\n", "help_all: on\n"])
def test_a_file_has_no_number_of_old_yaml_and_asks_for_no_help(text: str, tmp_path: Path) -> None:
    file = tmp_path / "lesson.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=text.partition(":")[0]):
        parsed("--config", str(file))


def test_a_column_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="text is named twice, a and b"):
        parsed("--columns", "text=a", "--columns", "text=b")
    with pytest.raises(ConfigError, match="text_column=b and columns text=a"):
        load_dataset("a.jsonl", text_column="b", columns={"text": "a"})


class _OfClass:
    learning_rate = 1e-3
    max_grad_norm = None

    def learn(self) -> None: ...


class _Hidden:
    __slots__ = ("learning_rate",)


def test_settings_of_an_objects_class_count_and_an_object_without_any_is_refused() -> None:
    config = Given.of(_OfClass()).config.train
    assert (config.learning_rate, config.max_grad_norm) == (1e-3, LessonConfig().train.max_grad_norm)
    with pytest.raises(ConfigError, match="settings"):
        Given.of(_Hidden())
    with pytest.raises(ConfigError, match="no attribute that can be read"):
        Given.of(type("Empty", (), {})())
    assert Given.of(argparse.Namespace()).config == LessonConfig()


def test_no_clipping_in_training_arguments_is_no_clipping_here(tmp_path: Path) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), max_grad_norm=None, report_to="none", use_cpu=True)
    assert Given.of(arguments).config.train.max_grad_norm is None


def test_a_dict_takes_the_same_names_and_says_where_the_others_belong() -> None:
    given = {"lr": 1e-3, "num_train_epochs": 2.0, "bf16": True, "fp16": False, "kd_ce_alpha": 0.25, "report_to": "none"}
    found = LessonConfig.from_dict(given).to_dict()
    meant = {"learning_rate": 1e-3, "num_epochs": 2, "mixed_precision": "bf16", "alpha": 0.75, "report_to": ()}
    assert {key: found[key] for key in meant} == meant
    with pytest.raises(ConfigError, match=r"out is no setting: pass run_dir= to the call.*batch_size is no setting"):
        LessonConfig.from_dict({"output_dir": "x", "per_device_train_batch_size": 3})


def test_the_line_that_people_paste_trains(
    teacher: Any, student: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(teacher, tokenizer, "T")
    save_model(student, tokenizer, "S")
    Path("data.jsonl").write_text('{"text": "the network, is large."}\n' * 8, encoding="utf-8")
    line = "distill --teacher_model_name_or_path T --model_name_or_path S --dataset_name data.jsonl --output_dir out"
    line += (
        " --per_device_train_batch_size 4 --num_train_epochs 1 --bf16 --report_to none --use_cpu --max_seq_length 16"
    )
    assert main(line.split()) == 0
    config = json.loads((Path("out") / CONFIG).read_text())["config"]
    meant = {"num_epochs": 1, "mixed_precision": "bf16", "report_to": [], "max_length": 16}
    assert {key: config[key] for key in meant} == meant
    assert sum(isinstance(event, StepDone) for event in read_events("out")) == 2
