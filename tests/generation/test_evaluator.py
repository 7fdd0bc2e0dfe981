"""What an evaluation finds, against the same figures written out in float64; and that it leaves nothing changed."""

import copy
import json
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import apt_model
from apt_model.data.batch import to_batch
from apt_model.data.notices import untold
from apt_model.errors import ConfigError, DataError, DeviceError, ModelError, NumericError, StorageError
from apt_model.generation.evaluator import evaluate_text_quality

LINES = ["互联网是全球最大的计算机网络。", "人工智能", "the network, is large.", "医疗教育经济文化", "a"]
CHATS = [("ab", "人工智能"), ("a long question, is it", "医疗"), ("c", "the network is large")]
TEMPLATE = (
    "{% for m in messages %}{{ '<s>' + m['role'] + ' ' + m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant ' }}{% endif %}"
)


def log_probabilities(model: Any, batch: Any) -> Tensor:
    """(B, L, V) in float64, by a model in float64."""
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        logits = exact(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    return logits.log_softmax(dim=-1)


def written_out(student: Any, teacher: Any, batches: list[Any], texts: list[str]) -> dict[str, float]:
    """Position by position."""
    nats, kl, tokens, correct, agreed = [], [], 0, 0, 0
    for batch in batches:
        q, p = log_probabilities(student, batch), log_probabilities(teacher, batch)
        for row in range(len(q)):
            for at in range(q.shape[1] - 1):
                target = int(batch.labels[row, at + 1])
                if target == -100:
                    continue
                tokens += 1
                nats.append(-float(q[row, at, target]))
                correct += int(q[row, at].argmax()) == target
                agreed += int(q[row, at].argmax()) == int(p[row, at].argmax())
                kl.append(float((p[row, at].exp() * (p[row, at] - q[row, at])).sum()))
    loss = math.fsum(nats) / tokens
    return {
        "tokens": tokens,
        "loss": loss,
        "perplexity": math.exp(loss),
        "bits_per_byte": math.fsum(nats) / math.log(2) / sum(len(text.encode()) for text in texts),
        "accuracy": correct / tokens,
        "agreement": agreed / tokens,
        "kl": math.fsum(kl) / tokens,
    }


@pytest.fixture
def near_student(teacher: Any) -> Any:
    """The teacher, a little off: it agrees with it often, but not always."""
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return student


@pytest.fixture
def chatty(tokenizer: Any) -> Any:
    made = copy.deepcopy(tokenizer)
    made.chat_template = TEMPLATE
    return made


def chats() -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}
        for asked, said in CHATS
    ]


def test_every_figure_equals_the_one_written_out(near_student: Any, teacher: Any, tokenizer: Any) -> None:
    found = evaluate_text_quality(near_student, DataLoader(LINES, batch_size=2), tokenizer, teacher)
    batches = [to_batch(LINES[at : at + 2], tokenizer=tokenizer) for at in (0, 2, 4)]
    expected = written_out(near_student, teacher, batches, LINES)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    assert 0 < found["agreement"] < 1
    assert (found["documents"], found["bytes"]) == (5, sum(len(line.encode()) for line in LINES))
    own = written_out(teacher, teacher, batches, LINES)
    for name in ("loss", "perplexity", "bits_per_byte", "accuracy"):
        assert found["teacher"][name] == pytest.approx(own[name], rel=1e-5), name
    assert {"kl", "agreement", "documents"}.isdisjoint(found["teacher"])


def test_the_gap_closed_is_the_share_of_the_loss_between_control_and_teacher(
    near_student: Any, teacher: Any, student: Any, tokenizer: Any
) -> None:
    batches = [LINES[:2], LINES[2:]]
    models = {"worst": student, "middle": near_student, "best": teacher}
    losses = {name: evaluate_text_quality(model, batches, tokenizer)["loss"] for name, model in models.items()}
    worst, middle, best = sorted(models, key=lambda name: -losses[name])
    found = evaluate_text_quality(models[middle], batches, tokenizer, models[best], control=models[worst])
    expected = (losses[worst] - losses[middle]) / (losses[worst] - losses[best])
    assert found["gap_closed"] == pytest.approx(expected, rel=1e-6)
    low, high = found["intervals"]["gap_closed"]
    assert low <= expected <= high
    alone = evaluate_text_quality(models[worst], batches, tokenizer, models[best])
    assert found["control"]["agreement"] == alone["agreement"]
    assert found["control"]["kl"] == pytest.approx(alone["kl"], rel=1e-6)
    upside_down = evaluate_text_quality(models[middle], batches, tokenizer, models[worst], control=models[best])
    assert "gap_closed" not in upside_down


def test_a_chat_is_scored_where_the_assistant_speaks(near_student: Any, teacher: Any, chatty: Any) -> None:
    found = evaluate_text_quality(near_student, [chats()], chatty, teacher, max_new_tokens=0)
    expected = written_out(near_student, teacher, [to_batch(chats(), tokenizer=chatty)], [said for _, said in CHATS])
    assert expected["tokens"] == sum(len(said) + 1 for _, said in CHATS)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    assert "chrf" not in found


class Coin(nn.Module):
    """Says token 1 with probability p, token 0 otherwise, whatever came before."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([1 - p, p]).log())

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.logits.expand(*input_ids.shape, 2)


def test_the_perplexity_of_a_model_of_two_tokens_is_what_a_pencil_says() -> None:
    ids = torch.tensor([[0, 1, 1, 1, 0]])  # the first is not predicted: three ones, one zero
    found = evaluate_text_quality(Coin(0.8), [ids], teacher=Coin(0.5))
    assert found["perplexity"] == pytest.approx((0.8**3 * 0.2) ** (-1 / 4), rel=1e-6)
    assert found["accuracy"] == 0.75
    assert found["kl"] == pytest.approx(0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2), rel=1e-6)
    assert found["teacher"]["perplexity"] == pytest.approx(2, rel=1e-6)
    assert "bits_per_byte" not in found
    assert found["intervals"] == {}


def test_batches_and_order_do_not_matter(student: Any, tokenizer: Any) -> None:
    """Up to the order in which numbers are added, and to padding that is masked."""
    one = evaluate_text_quality(student, [LINES], tokenizer)
    many = evaluate_text_quality(student, [[line] for line in reversed(LINES)], tokenizer)
    for name in ("documents", "tokens", "bytes", "loss", "perplexity", "bits_per_byte", "accuracy"):
        assert one[name] == pytest.approx(many[name], rel=1e-5)


def test_documents_all_alike_have_intervals_of_no_width_and_others_have_some(student: Any, tokenizer: Any) -> None:
    alike = evaluate_text_quality(student, [["人工智能"] * 8], tokenizer)
    for name, (low, high) in alike["intervals"].items():
        assert low == pytest.approx(alike[name], rel=1e-6)
        assert high == pytest.approx(alike[name], rel=1e-6)
    other = evaluate_text_quality(student, [LINES], tokenizer)
    assert set(other["intervals"]) == {"loss", "perplexity", "bits_per_byte", "accuracy"}
    for name, (low, high) in other["intervals"].items():
        assert low <= other[name] <= high
    assert other["intervals"]["perplexity"] == pytest.approx([math.exp(end) for end in other["intervals"]["loss"]])
    assert other["intervals"]["loss"][0] < other["intervals"]["loss"][1]


def test_the_same_seed_gives_the_same_dict_and_another_other_intervals(student: Any, tokenizer: Any) -> None:
    one, same, other = (evaluate_text_quality(student, [LINES], tokenizer, seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert {**one, "intervals": 0} == {**other, "intervals": 0}
    assert one["intervals"] != other["intervals"]


def test_prompts_are_answered_and_judged(near_student: Any, teacher: Any, chatty: Any) -> None:
    import sacrebleu

    found = evaluate_text_quality(near_student, [chats()[:2], chats()[2:]], chatty, teacher, max_new_tokens=6)
    for numbers, model in ((found, near_student), (found["teacher"], teacher)):
        answers = []
        for asked, _ in CHATS:
            ids = torch.tensor([chatty(f"<s>user {asked}</s><s>assistant ")["input_ids"]])
            said = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
            answers.append(chatty.decode(said[0, ids.shape[1] :], skip_special_tokens=True).strip())
        references = [[said for _, said in CHATS]]
        assert numbers["chrf"] == sacrebleu.corpus_chrf(answers, references).score
        assert numbers["bleu"] == sacrebleu.corpus_bleu(answers, references, tokenize="zh").score
        assert numbers["distinct_1"] == len(set("".join(answers)) - {" "}) / len("".join(answers).replace(" ", ""))
        assert {"chrf", "bleu"} < set(numbers["intervals"])
    assert found["answers"] == 3
    assert "tok:zh" in found["signatures"]["bleu"]


def test_only_so_many_prompts_are_answered(student: Any, tokenizer: Any) -> None:
    rows = [{"prompt": "ab", "completion": text} for text in ("人工", "智能", "the", "is")]
    common = {"max_new_tokens": 3, "resamples": 100}
    found = evaluate_text_quality(student, [rows[:3], rows[3:]], tokenizer, max_prompts=2, **common)
    assert (found["answers"], found["documents"]) == (2, 4)
    assert evaluate_text_quality(student, [rows], tokenizer, max_prompts=None, **common)["answers"] == 4
    assert "answers" not in evaluate_text_quality(student, [rows], tokenizer, max_new_tokens=0)
    columns = {"prompt": ["ab"] * 4, "completion": [row["completion"] for row in rows]}  # as a DataLoader collates
    assert evaluate_text_quality(student, [columns], tokenizer, max_prompts=2, **common) == evaluate_text_quality(
        student, [rows], tokenizer, max_prompts=2, **common
    )


def test_without_sacrebleu_prompts_are_refused_before_any_work(
    student: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    calls: list[object] = []
    student.register_forward_hook(lambda *_: calls.append(0))
    rows = [{"prompt": "ab", "completion": "人工"}]
    with pytest.raises(ConfigError, match=r"pip install 'apt-model\[evaluate\]'"):
        evaluate_text_quality(student, [rows], tokenizer)
    assert calls == []
    assert evaluate_text_quality(student, [rows], tokenizer, max_new_tokens=0)["documents"] == 1
    assert evaluate_text_quality(student, [LINES], tokenizer)["documents"] == 5


def state(*models: nn.Module) -> list[Any]:
    flags = [(module.training for module in model.modules()) for model in models]
    return [
        random.getstate(),
        np.random.get_state()[1].tolist(),  # type: ignore[index]
        torch.get_rng_state().tolist(),
        [list(flag) for flag in flags],
        [[p.requires_grad for p in model.parameters()] for model in models],
        [[p.grad is None for p in model.parameters()] for model in models],
        torch.is_grad_enabled(),
    ]


def test_everything_is_afterwards_as_it_was(student: Any, teacher: Any, chatty: Any) -> None:
    student.train()
    student.lm_head.eval()
    student.lm_head.weight.requires_grad_(False)
    weights = [copy.deepcopy(model.state_dict()) for model in (student, teacher)]
    settings = [copy.deepcopy(model.generation_config.to_dict()) for model in (student, teacher)]
    before = state(student, teacher)
    loader = DataLoader(chats(), batch_size=2, shuffle=True, collate_fn=list)
    evaluate_text_quality(student, loader, chatty, teacher, max_new_tokens=3, speed=True, resamples=100)
    assert state(student, teacher) == before
    assert [model.generation_config.to_dict() for model in (student, teacher)] == settings
    for model, old in zip((student, teacher), weights, strict=True):
        assert all(torch.equal(old[name], tensor) for name, tensor in model.state_dict().items())


def test_it_is_also_as_it_was_after_a_failure(student: Any, tokenizer: Any) -> None:
    def broken() -> Iterator[list[str]]:
        yield LINES
        torch.rand(3)
        raise OSError("the disk is gone")

    student.train()
    before = state(student)
    with pytest.raises(OSError, match="the disk is gone"):
        evaluate_text_quality(student, broken(), tokenizer)
    assert state(student) == before


def test_a_teacher_that_may_not_be_moved_stays(student: Any, teacher: Any, tokenizer: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("`.to` is not supported")

    free = evaluate_text_quality(student, [["人工智能"]], tokenizer, teacher, device="cpu")
    teacher.is_quantized, teacher.to = True, refuse
    assert evaluate_text_quality(student, [["人工智能"]], tokenizer, teacher, device="cpu") == free


def test_dropout_is_off_meanwhile(make_model: Any, tokenizer: Any) -> None:
    model = make_model(hidden=16, layers=1, attention_dropout=0.5).train()
    meanwhile = evaluate_text_quality(model, [LINES], tokenizer)
    assert model.training
    assert meanwhile == evaluate_text_quality(model.eval(), [LINES], tokenizer)


def test_size_is_always_there_and_speed_where_asked_for(student: Any, teacher: Any, tokenizer: Any) -> None:
    plain = evaluate_text_quality(student, [LINES], tokenizer, teacher)
    assert plain["parameters"] == sum(p.numel() for p in student.parameters())
    assert plain["teacher"]["megabytes"] == pytest.approx(4 * plain["teacher"]["parameters"] / 2**20, rel=0.01)
    assert (plain["name"], "peak_megabytes" in plain) == ("LlamaForCausalLM", False)
    measured = evaluate_text_quality(student, [LINES], tokenizer, teacher, speed=True)
    for numbers in (measured, measured["teacher"]):
        assert numbers["prompt_tokens_per_second"] > 0
        assert numbers["decode_tokens_per_second"] > 0
        assert numbers["peak_megabytes"] > numbers["megabytes"]


def test_a_wider_head_of_the_teacher_changes_no_number_of_the_student(
    student: Any, make_model: Any, tokenizer: Any
) -> None:
    wide = make_model(hidden=32, layers=2, vocabulary=72, seed=1)
    alone = evaluate_text_quality(student, [LINES], tokenizer)
    beside = evaluate_text_quality(student, [LINES], tokenizer, wide)
    assert {name: beside[name] for name in alone if name != "intervals"} == {
        name: alone[name] for name in alone if name != "intervals"
    }
    assert beside["kl"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_length": 1}, "max_length is out of range; got 1, expected a whole number, 2 or more"),
        ({"max_new_tokens": -1}, "max_new_tokens is out of range; got -1"),
        ({"max_prompts": 0}, "max_prompts is out of range; got 0"),
        ({"resamples": True}, "resamples is out of range; got True"),
        ({"resamples": 10.5}, "resamples is out of range; got 10.5"),
        ({"lang": "fr"}, "lang is unknown"),
        ({"device": "abacus"}, "device is unknown"),
    ],
)
def test_an_argument_out_of_its_range_is_refused(arguments: Any, words: str, student: Any, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=words):
        evaluate_text_quality(student, [LINES], tokenizer, **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_a_device_that_is_not_there_is_refused(student: Any, tokenizer: Any) -> None:
    with pytest.raises(DeviceError, match="this machine has no cuda"):
        evaluate_text_quality(student, [LINES], tokenizer, device="cuda")


def test_data_that_cannot_be_scored_is_refused_in_one_line(student: Any, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="no token has a label to score; got 0 batches"):
        evaluate_text_quality(student, [], tokenizer)
    with pytest.raises(DataError, match="no token has a label to score; got 2 batches"):
        evaluate_text_quality(student, [[""], torch.tensor([[5]])], tokenizer, tell=untold)
    with pytest.raises(DataError, match="outside the student's vocabulary"):
        evaluate_text_quality(student, [torch.tensor([[5, 99]])])
    with pytest.raises(DataError, match="no tokenizer that can encode"):
        evaluate_text_quality(student, [LINES])
    with pytest.raises(ModelError, match="the teacher returned no logits"):
        evaluate_text_quality(student, [LINES], tokenizer, _Mute())


class _Mute(nn.Module):
    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        return {"loss": input_ids.sum()}


def test_rows_without_a_label_are_no_documents(student: Any, tokenizer: Any) -> None:
    ids = to_batch(LINES, tokenizer=tokenizer)
    labels = ids.labels.clone()
    labels[1] = -100
    batch = {"input_ids": ids.input_ids, "attention_mask": ids.attention_mask, "labels": labels}
    found = evaluate_text_quality(student, [batch], tokenizer)
    without = evaluate_text_quality(student, [LINES[:1] + LINES[2:]], tokenizer)
    assert found["documents"] == 4
    assert found["loss"] == pytest.approx(without["loss"], rel=1e-5)


def test_logits_that_are_no_numbers_are_named_with_their_batch(student: Any, teacher: Any, tokenizer: Any) -> None:
    with torch.no_grad():
        teacher.lm_head.weight[5] = torch.nan
    with pytest.raises(NumericError, match="the teacher's logits are not finite in batch 0"):
        evaluate_text_quality(student, [LINES], tokenizer, teacher)
    with pytest.raises(NumericError, match="the student's logits are not finite in batch 0"):
        evaluate_text_quality(teacher, [LINES], tokenizer)


def test_it_says_itself_in_a_line_in_both_languages(near_student: Any, teacher: Any, tokenizer: Any) -> None:
    found = evaluate_text_quality(near_student, [LINES], tokenizer, teacher)
    said = f"{found}"
    assert "\n" not in said
    assert said.startswith(f"困惑度 {found['perplexity']:.2f}，每字节比特数 ")
    assert f"，预测准确率 {100 * found['accuracy']:.1f}%，与教师一致率 " in said
    english = f"{evaluate_text_quality(near_student, [LINES], tokenizer, teacher, lang='en')}"
    assert english.startswith(f"perplexity {found['perplexity']:.2f}, bits per byte ")


def test_it_is_a_dict_and_writes_strict_json(student: Any, tokenizer: Any, tmp_path: Path) -> None:
    found = evaluate_text_quality(student, [LINES], tokenizer)
    assert isinstance(found, dict)
    found.save(tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text()) == dict(found)
    found["perplexity"], found["intervals"]["perplexity"] = math.inf, [1.0, math.nan]
    found.save(tmp_path / "found.json")
    again = json.loads((tmp_path / "found.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (again["perplexity"], again["intervals"]["perplexity"]) == (None, [1.0, None])
    with pytest.raises(StorageError, match=r"cannot be written to .*nowhere"):
        found.save(tmp_path / "nowhere" / "found.json")


def test_it_is_a_public_name() -> None:
    assert apt_model.evaluate_text_quality is evaluate_text_quality
