"""The model card of a saved student: what is known of it, in the hub's form; its code runs."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from torch import nn

from apt_model.cli import main
from apt_model.models.lora import Lora, add_lora
from apt_model.models.pretrained import load_model, save_model
from apt_model.models.readme import MARK, PLACE, quoted
from apt_model.plugins.distillation_plugin import DistillationPlugin
from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin
from tests.chats import CHATML, byte_level, chat, small_llama

CHATS = [{"messages": chat("A lake?", "Como.")}, {"messages": chat("A town?", "Bath.")}]


def card_of(path: Path) -> Any:
    return ModelCard.load(path / "README.md")


def run_code(path: Path) -> str:
    """What the card's own code prints."""
    (code,) = re.findall(r"```python\n(.*?)```", (path / "README.md").read_text("utf-8"), flags=re.DOTALL)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(code.replace(PLACE, str(path)), {})
    return shown.getvalue()


@pytest.fixture
def taught(tmp_path: Path) -> Path:
    """A student of a teacher with a name of the hub, that was read on unseen rows."""
    teacher, student = small_llama(layers=2), small_llama(seed=1)
    teacher.name_or_path = "example/teacher-1b"
    config = {"temperature": 2.0, "alpha": 0.6, "learning_rate": 0.003, "seed": 7, "show_samples": False}
    VisualDistillationPlugin(config).visual_distill_model(
        student,
        teacher,
        [CHATS] * 3,
        tokenizer=byte_level(CHATML),
        eval_dataloader=[[{"messages": chat("A hill?", "Box Hill.")}, {"messages": chat("A river?", "The Loire.")}]],
        num_epochs=2,
        device="cpu",
        run_dir=tmp_path / "run",
        data_names=["数据/chats*_1.jsonl", "example/rivers"],
        sinks=[],
    )
    return tmp_path / "run" / "student"


def test_a_run_leaves_a_card_with_teacher_data_length_settings_and_what_was_measured(taught: Path) -> None:
    from apt_model.events.runfile import read_events

    card = card_of(taught)
    assert card.data.base_model == ["example/teacher-1b"]
    assert card.data.datasets == ["example/rivers"]
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-generation")
    assert card.data.tags == ["apt-model", "knowledge-distillation"]
    assert (card.data.license, card.data.language) == (None, None)
    (finished,) = [event for event in read_events(taught.parent) if event.kind == "run_finished"]
    teacher, student = (sum(map(torch.numel, small_llama(layers=count).parameters())) for count in (2, 1))
    for said in (
        f"`LlamaForCausalLM` of {student:,} parameters",
        f"`LlamaForCausalLM` of {teacher:,} parameters, `example/teacher-1b`",
        "- Data: `数据/chats*_1.jsonl`, `example/rivers`; at most 512 tokens a row",
        f"- Length: 6 optimizer steps in 2 epochs, {finished.tokens:,} tokens with a label",
        "- Loss: 0.6 · T² · `forward_kl` to the teacher at temperature T = 2 and 0.4 · cross-entropy on the labels",
        "- Optimizer: AdamW, peak learning rate 0.003, cosine schedule, 5% warm-up, weight decay 0.01; ",
        "seed: 7",
        f"On 2 rows that it did not learn from ({finished.unseen.tokens:,} tokens)",
        f"Agreement with the teacher on the most probable token: {finished.unseen.agreement.value:.1%} ± ",
        f"KL(teacher ‖ student): {finished.unseen.kl.value:.3f} ± ",
        "An answer ends with `</s>` or `<|im_end|>`.",
        f"transformers {transformers.__version__} or newer",
    ):
        assert said in card.text, said


def test_the_cards_code_asks_in_the_template_and_stops(taught: Path) -> None:
    said = run_code(taught)
    assert said.startswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


def test_nothing_is_claimed_that_was_not_measured_or_given(tmp_path: Path) -> None:
    student = small_llama(seed=1)
    DistillationPlugin({"alpha": 0.0}).distill_model(
        student,
        small_llama(),
        [[{"text": "The Loire."}]],
        torch.optim.SGD(student.parameters(), lr=0.1),
        tokenizer=byte_level(None),
        num_epochs=1,
        device="cpu",
        run_dir=tmp_path,
        sinks=[],
    )
    card = card_of(tmp_path / "student")
    assert (card.data.base_model, card.data.datasets, card.data.tags) == (None, None, ["apt-model"])
    assert "istilled" not in card.text.partition("## Training")[0]
    assert "- Data: not named" in card.text
    assert "- Optimizer: `SGD`, made by the caller" in card.text
    assert "Not measured on text that it did not learn from." in card.text
    assert run_code(tmp_path / "student").startswith("<s>Hello")


def test_save_model_alone_says_that_nothing_is_known_of_the_training(tmp_path: Path) -> None:
    save_model(small_llama(), None, tmp_path)
    card = card_of(tmp_path)
    assert "Nothing was recorded of how it was trained." in card.text
    assert "## Training" not in card.text
    run_code(tmp_path)
    save_model(nn.Linear(2, 2), None, tmp_path / "plain")
    assert "load_model(" in card_of(tmp_path / "plain").text


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own
def test_adapters_have_a_card_of_their_own_and_not_the_form_of_peft(tmp_path: Path) -> None:
    save_model(small_llama(), byte_level(CHATML), tmp_path / "base")
    adapted = add_lora(load_model(tmp_path / "base")[0], Lora(r=2), base=tmp_path / "base")
    save_model(adapted, byte_level(CHATML), tmp_path / "adapters")
    card = card_of(tmp_path / "adapters")
    assert card.data.library_name == "peft"
    assert card.data.base_model is None, "a path is refused by the hub"
    assert "More Information Needed" not in card.text
    assert run_code(tmp_path / "adapters").startswith("<|im_start|>user\nHello")


def test_a_readme_that_somebody_wrote_is_kept_and_ours_is_renewed(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Mine\n", encoding="utf-8")
    save_model(small_llama(), None, tmp_path)
    assert (tmp_path / "README.md").read_text("utf-8") == "# Mine\n"
    (tmp_path / "README.md").write_text(f"before\n{MARK}\n", encoding="utf-8")
    save_model(small_llama(), None, tmp_path)
    assert "before" not in (tmp_path / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("a_b*c*[x](y)<b>", "`a_b*c*[x](y)<b>`"),
        ("two\nlines\x1b[31m", "`two lines\ufffd[31m`"),
        ("`tick", "`` `tick ``"),
        ("a``b", "```a``b```"),
        ("半\ud800个", "`半?个`"),
    ],
)
def test_any_name_is_one_code_span_on_one_line(text: str, span: str) -> None:
    assert quoted(text) == span


def test_the_command_line_names_teacher_and_data_as_they_were_given(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(small_llama(layers=2), byte_level(CHATML), "teacher")
    Path("河流.txt").write_text("The Loire.\nThe Rhône.\n", encoding="utf-8")
    given = ["--teacher", "teacher", "--student", "layers=1", "--data", "河流.txt", "--out", "run", "--max-steps", "1"]
    assert main(["distill", *given, "--plain", "--device", "cpu"]) == 0
    text = card_of(Path("run/student")).text
    assert "- Data: `河流.txt`" in text
    assert "parameters, `teacher`)" in text


@pytest.mark.parametrize(
    ("name", "is_known"),
    [("org/model-1.0", True), ("null/1.0", True), ("org/模型", False), ("org/a--b", False), ("org/model.git", False)],
)
def test_a_name_that_the_hub_would_refuse_is_no_base_model(name: str, is_known: bool, tmp_path: Path) -> None:
    model = small_llama()
    model.name_or_path = name
    save_model(model, None, tmp_path)
    assert card_of(tmp_path).data.base_model == ([name] if is_known else None)
