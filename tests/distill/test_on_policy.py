"""Steps on what the student writes: what is asked of it, what is learned of it, and what stays as it was."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from apt_model.config.sections import DistillConfig
from apt_model.data.batch import Batch
from apt_model.distill.on_policy import OnPolicy
from apt_model.errors import ConfigError, ModelError
from apt_model.events.cards import Observation
from apt_model.events.records import Notice, StepDone
from apt_model.models.generate import draw, generate
from tests.conftest import VOCABULARY, Listener
from tests.distill.plain import write_everything_out
from tests.distill.test_loop import Plain, run, state

END, PAD = 2, 0
QUESTION, TEXT = [1, 11, 12, 13], [1, 21, 22, 23, 24, 25, 26]
WRITTEN = [[31, 32, END, END, END], [41, 42, 43, 44, 45]]  # as `generate` gives it, where an end of text is padding too
DATA = {
    "input_ids": torch.tensor([[*QUESTION, 51, 52, END, PAD], [PAD, *TEXT], [1, 6, 7, 8, 9, PAD, PAD, PAD]]),
    "attention_mask": torch.tensor([[1] * 7 + [0], [0] + [1] * 7, [1] * 5 + [0] * 3]),
    "labels": torch.tensor([[-100] * 4 + [51, 52, END, -100], [-100, -100, *TEXT[1:]], [-100] * 8]),
}


class Scripted(LlamaForCausalLM):
    """A student that writes what it is told, and keeps what it was asked."""

    script: Sequence[Sequence[int]] = WRITTEN
    asked: list[tuple[list[list[int]], list[list[int]], int, bool]]

    def generate(self, ids: Tensor, *, attention_mask: Tensor, max_new_tokens: int) -> Tensor:  # type: ignore[override]
        asked = (ids.tolist(), attention_mask.tolist(), max_new_tokens, self.training)
        self.asked = [*getattr(self, "asked", []), asked]
        return torch.cat([ids, torch.tensor(self.script)[:, :max_new_tokens]], dim=1)


@pytest.fixture
def scripted(make_model: Callable[..., Any]) -> Scripted:
    return Scripted(make_model(hidden=16, layers=1, seed=2).config)


def on_policy(student: nn.Module, teacher: nn.Module, *, seed: int = 0, **settings: Any) -> OnPolicy:
    return OnPolicy(
        DistillConfig(**{"on_policy": 0.5, **settings}),
        student=student,
        teacher=teacher,
        accelerator=Accelerator(cpu=True),
        tokenizer=None,
        vocabulary=VOCABULARY,
        seed=seed,
    )


def test_labels_are_on_what_the_student_wrote_alone_its_end_of_text_among_it(
    scripted: Scripted, teacher: nn.Module
) -> None:
    """A question and its answer; a text, padded on the left; a row with nothing to learn."""
    scripted.train()
    batch = on_policy(scripted, teacher, on_policy_tokens=5).write(scripted, Batch(**DATA))
    assert scripted.asked == [([[1, 11, 12, 13], [END, 1, 21, 22]], [[1, 1, 1, 1], [0, 1, 1, 1]], 5, False)]
    assert scripted.training
    assert batch.is_written
    assert batch.input_ids.tolist() == [[1, 11, 12, 13, 31, 32, END, PAD], [1, 21, 22, 41, 42, 43, 44, 45]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1, 1, 1, 0], [1] * 8]
    assert batch.labels.tolist() == [[-100] * 4 + [31, 32, END, -100], [-100] * 3 + [41, 42, 43, 44, 45]]


def test_no_more_is_written_than_both_models_have_positions_for(
    scripted: Scripted, make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apt_model.distill.on_policy.limits", lambda model: (VOCABULARY, model.config.vocab_size))
    short = make_model(vocabulary=6)  # six positions, says the line above
    batch = on_policy(scripted, short, on_policy_tokens=5).write(scripted, Batch(**DATA))
    assert [most for _, _, most, _ in scripted.asked] == [2]
    assert batch.labels.tolist() == [[-100] * 4 + [31, 32], [-100] * 3 + [41, 42, -100]]


def test_a_batch_without_labels_is_left_as_it_is(scripted: Scripted, teacher: nn.Module) -> None:
    batch = Batch(**{**DATA, "labels": torch.full((3, 8), -100)})
    assert on_policy(scripted, teacher).write(scripted, batch) is batch


def test_the_steps_follow_from_seed_and_number_and_have_their_share(student: nn.Module, teacher: nn.Module) -> None:
    def steps(**settings: Any) -> list[bool]:
        one = on_policy(student, teacher, **settings)
        return [one.is_due(step) for step in range(1, 4001)]

    assert steps() == steps()
    assert steps() != steps(seed=1)
    assert sum(steps(on_policy=0.25)) / 4000 == pytest.approx(0.25, abs=0.025)
    assert all(steps(on_policy=1.0))


def test_a_step_learns_from_the_teacher_alone_at_what_was_written(
    listener: Listener, scripted: Scripted, teacher: nn.Module
) -> None:
    """Loss and norm of the gradient by plain autograd in float64, over the two rows without any padding."""
    exact, wise = copy.deepcopy(scripted).double(), copy.deepcopy(teacher).double()
    settings = {"temperature": 2.0, "loss_kind": "reverse_kl", "max_grad_norm": None, "on_policy_tokens": 5}
    run(listener, scripted, teacher, [DATA], on_policy=1.0, **settings)
    (step,) = listener.of(StepDone)
    kd = torch.zeros((), dtype=torch.float64)
    for prompt, written in ((QUESTION, [31, 32, END]), (TEXT[:3], WRITTEN[1])):
        ids = torch.tensor([[*prompt, *written]])
        for place in range(len(prompt) - 1, ids.shape[1] - 1):
            q, p = ((model(input_ids=ids).logits[0, place] / 2).log_softmax(-1) for model in (exact, wise))
            kd = kd + 4 * (q.exp() * (q - p.detach())).sum() / 8
    (0.7 * kd).backward()
    norm = torch.stack([p.grad.norm() for p in exact.parameters() if p.grad is not None]).norm()
    assert step.ce is None
    assert step.tokens == 8
    assert (step.kd, step.loss, step.grad_norm) == pytest.approx((kd.item(), 0.7 * kd.item(), norm.item()), rel=1e-4)


def test_written_out_as_fused(
    listener: Listener, scripted: Scripted, teacher: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, heard = copy.deepcopy(scripted), Listener()
    run(listener, scripted, teacher, [DATA], on_policy=1.0)
    write_everything_out(monkeypatch)
    run(heard, other, teacher, [DATA], on_policy=1.0)
    (one,), (two,) = listener.of(StepDone), heard.of(StepDone)
    assert (one.loss, one.kd, one.grad_norm) == pytest.approx((two.loss, two.kd, two.grad_norm), rel=1e-4)
    assert (one.ce, two.ce) == (None, None)


def test_a_card_of_such_a_step_gives_the_prompt_and_shows_the_rest(
    listener: Listener, scripted: Scripted, teacher: nn.Module, tokenizer: Any
) -> None:
    run(listener, scripted, teacher, [DATA], on_policy=1.0, sample_frequency=1, tokenizer=tokenizer, given_tokens=5)
    (card,) = listener.of(Observation)
    assert (card.source, card.given, card.tokens) == ("train", tokenizer.decode(QUESTION[1:]), 3)
    assert card.input_text == tokenizer.decode([*QUESTION[1:], 31, 32])


def test_what_is_drawn_hardly_warm_is_what_is_said_greedily_whatever_the_padding(
    make_model: Callable[..., Any],
) -> None:
    model = make_model(seed=4)
    model.lm_head.weight.data.mul_(20)
    prompts = [[1, 5, 6, 7, 8], [1, 9]]
    greedy = [generate(model, None, [prompt], new_tokens=6)[0] for prompt in prompts]
    drawn = draw(model, None, prompts, new_tokens=6, temperature=1e-4)
    assert drawn == [row if len(row) == 6 else [*row, END] for row in greedy]
    assert sorted(map(len, drawn)) == [2, 6]


def test_what_is_drawn_follows_the_whole_distribution_within_the_vocabulary(make_model: Callable[..., Any]) -> None:
    """Far more tokens than the 50 likeliest that transformers would draw from; none that only one model has."""
    model = make_model(vocabulary=256)
    model.generation_config.top_k, model.generation_config.top_p = 50, 0.5
    drawn = [row[0] for row in draw(model, None, [[1, 5]] * 2000, new_tokens=1, temperature=1.0, vocabulary=200)]
    logits = model(torch.tensor([[1, 5]])).logits[0, -1, :200].detach()
    counts, probs = torch.bincount(torch.tensor(drawn), minlength=200), logits.softmax(0)
    assert len(counts) == 200
    assert (counts > 0).sum() > 150
    spread = (2000 * probs * (1 - probs)).sqrt()
    assert ((counts - 2000 * probs) / spread).abs().max() < 5


def test_an_end_of_text_is_kept_and_nothing_behind_it(make_model: Callable[..., Any]) -> None:
    model = make_model()
    drawn = draw(model, None, [[1, 5]] * 64, new_tokens=40, temperature=1.0)
    ended = [row for row in drawn if END in row]
    assert 10 < len(ended) < 60
    assert all(row.index(END) == len(row) - 1 for row in ended)
    assert all(len(row) == 40 for row in drawn if END not in row)


@pytest.mark.parametrize("kind", ["forward_kl", "jsd"])
def test_whether_somebody_looks_changes_no_weight(
    make_model: Callable[..., Any], teacher: nn.Module, make_batches: Callable[..., Any], tokenizer: Any, kind: str
) -> None:
    ends = []
    for looks in (False, True):
        student = make_model(hidden=16, layers=1, seed=2, attention_dropout=0.1)
        more = {"seed": 1, "sample_frequency": 1, "shows_cards": looks, "tokenizer": tokenizer}
        more |= {"on_policy": 0.5, "on_policy_tokens": 6, "num_epochs": 2, "loss_kind": kind}
        heard = Listener()
        run(heard, student, teacher, make_batches(), **more, **({"exam_prompts": ["ab"]} if looks else {}))
        ends.append((state(student), [(one.loss, one.ce) for one in heard.of(StepDone)]))
        assert bool(heard.of(Observation)) is looks
    assert ends[0] == ends[1]
    assert {ce is None for _, ce in ends[0][1]} == {True, False}


def test_a_student_learns_from_its_own_texts(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    run(listener, student, teacher, make_batches(), on_policy=1.0, on_policy_tokens=8, num_epochs=12, temperature=1.0)
    losses = [one.loss for one in listener.of(StepDone)]
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


def test_how_much_is_on_policy_is_said_once(listener: Listener, scripted: Scripted, teacher: nn.Module) -> None:
    run(listener, scripted, teacher, [DATA], on_policy=0.3, on_policy_tokens=5)
    said = [one.values for one in listener.of(Notice) if one.key == "notice.on_policy"]
    assert said == [{"percent": "30", "tokens": 5}]


def test_a_student_that_cannot_write_and_a_run_without_kd_are_refused(
    listener: Listener, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    with pytest.raises(
        ModelError, match=r"the student cannot generate texts.*got Plain, expected generate\(\).*on_policy=0"
    ):
        run(listener, Plain(lambda x: x), teacher, make_batches(), on_policy=0.5)
    with pytest.raises(ConfigError, match="on_policy steps learn from KD alone, but alpha is 0"):
        run(listener, Plain(lambda x: x), teacher, make_batches(), on_policy=0.5, alpha=0.0)
