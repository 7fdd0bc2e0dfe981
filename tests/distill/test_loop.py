"""The loop: what goes in, what comes out, and that the sums are over the tokens of the whole step."""

import copy
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from apt_model.config import LessonConfig
from apt_model.distill import loop
from apt_model.distill.inputs import Data, Models, Watching
from apt_model.distill.loop import distill
from apt_model.distill.setup import make_accelerator
from apt_model.distill.teachers import live
from apt_model.errors import ConfigError, DataError, ModelError, NumericError
from apt_model.events.cards import Observation
from apt_model.events.records import EpochFinished, Notice, RunFinished, RunStarted, StepDone
from apt_model.events.sinks import Audience
from apt_model.models.devices import accelerate_state_of_our_own
from tests.conftest import VOCABULARY, Listener

CPU = torch.device("cpu")


def run(listener: Listener, student: nn.Module, teacher: nn.Module, batches: Any, **settings: Any) -> RunFinished:
    """A short run; `settings` are config keys, or parts of `Models` and `Watching`."""
    given = {key: settings.pop(key) for key in ("tokenizer", "optimizer", "scheduler") if key in settings}
    watching = Watching(audience=Audience([listener]), shows_cards=settings.pop("shows_cards", True))
    config = LessonConfig.from_dict({"num_epochs": 1, "learning_rate": 1e-2, "sample_frequency": 2, **settings})
    models, data = Models(student=student, teacher=teacher, **given), Data(train=batches)
    return distill(models, data, config=config, device=CPU, watching=watching)


def state(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in model.state_dict().items()}


def test_a_student_learns_and_its_teacher_is_untouched(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    before = state(teacher)
    teacher.train()
    teacher.model.layers[0].eval()
    teacher.lm_head.weight.requires_grad_(False)
    run(listener, student, teacher, make_batches(), num_epochs=12)
    epochs = listener.of(EpochFinished)
    assert epochs[-1].mean_loss < 0.7 * epochs[0].mean_loss
    assert state(teacher) == before
    assert all(p.grad is None for p in teacher.parameters())
    assert teacher.training
    assert not teacher.model.layers[0].training
    assert [name for name, p in teacher.named_parameters() if not p.requires_grad] == ["lm_head.weight"]
    assert not student.training


def test_the_teacher_goes_to_the_device_that_accelerate_has_given_the_process(
    monkeypatch: pytest.MonkeyPatch,
    listener: Listener,
    student: nn.Module,
    teacher: nn.Module,
    make_batches: Callable[..., Any],
) -> None:
    """A launcher makes "cuda" another GPU for each process; here, "cpu" is one that has a number."""
    theirs, places = torch.device("cpu", 0), []

    def launched(*given: Any) -> Any:
        accelerator = make_accelerator(*given)
        accelerator.state.device = theirs
        return accelerator

    def put(model: nn.Module, device: torch.device) -> torch.device:
        places.append((model, device))
        return device

    monkeypatch.setattr(loop, "make_accelerator", launched)
    monkeypatch.setattr(live, "move", put)
    run(listener, student, teacher, make_batches(count=1))
    assert places == [(teacher, theirs)]


def test_the_step_is_the_formula_written_out_over_the_tokens_of_the_whole_window(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    """Loss and gradient of one accumulated step, in float64, by plain autograd over all its tokens at once."""
    batches = make_batches(count=3)
    reference = copy.deepcopy(student).double()
    wise = copy.deepcopy(teacher).double()
    kd = ce = torch.zeros((), dtype=torch.float64)
    tokens = 0
    for batch in batches:
        logits, targets = reference(**batch).logits[:, :-1], batch["input_ids"][:, 1:]
        valid = batch["attention_mask"][:, 1:] == 1
        p, q = ((x[valid] / 4.0).softmax(-1) for x in (wise(**batch).logits[:, :-1].detach(), logits))
        kd = kd + 16 * (p * (p.log() - q.log())).sum()
        ce = ce - logits[valid].softmax(-1).gather(1, targets[valid][:, None]).log().sum()
        tokens += int(valid.sum())
    loss = 0.7 * kd / tokens + 0.3 * ce / tokens
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in reference.parameters()]).norm().item()
    run(listener, student, teacher, batches, gradient_accumulation_steps=3, max_grad_norm=None)
    (step,) = listener.of(StepDone)
    assert step.loss == pytest.approx(loss.item(), rel=1e-6)
    assert (step.kd, step.ce) == pytest.approx((kd.item() / tokens, ce.item() / tokens), rel=1e-6)
    assert step.grad_norm == pytest.approx(norm, rel=1e-5)
    assert step.tokens == tokens


def test_eight_batches_of_one_teach_what_two_of_four_do_with_uneven_masks(
    student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    by_four = make_batches(count=4, rows=4)
    by_one = [{k: v[i : i + 1] for k, v in batch.items()} for batch in by_four for i in range(4)]
    other = copy.deepcopy(student)
    first, second = Listener(), Listener()
    run(first, student, teacher, by_four, gradient_accumulation_steps=2, lr_scheduler_type="linear")
    run(second, other, teacher, by_one, gradient_accumulation_steps=8, lr_scheduler_type="linear")
    for one, two in zip(first.of(StepDone), second.of(StepDone), strict=True):
        assert (one.loss, one.grad_norm, one.tokens) == pytest.approx((two.loss, two.grad_norm, two.tokens), rel=1e-4)
    for one, two in zip(student.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_a_last_window_that_is_not_full_is_still_a_step(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    run(listener, student, teacher, make_batches(count=5), gradient_accumulation_steps=2)
    assert [step.batch for step in listener.of(StepDone)] == [1, 3, 4]
    assert listener.of(RunStarted)[0].total_steps == 3


class Plain(nn.Module):
    """A model that knows nothing of Hugging Face, with whatever output is asked for."""

    def __init__(self, wrap: Callable[[torch.Tensor], Any], vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        self.embed, self.head, self.wrap = nn.Embedding(vocabulary, 8), nn.Linear(8, vocabulary), wrap

    def forward(self, x: torch.Tensor) -> Any:
        return self.wrap(self.head(self.embed(x)))


@pytest.mark.parametrize(
    "wrap",
    [lambda x: x, lambda x: (x, None), lambda x: [x], lambda x: {"logits": x}, lambda x: SimpleNamespace(logits=x)],
    ids=["tensor", "tuple", "list", "dict", "object"],
)
def test_any_form_of_logits_is_accepted(
    listener: Listener, wrap: Callable[[torch.Tensor], Any], make_batches: Callable[..., Any]
) -> None:
    run(listener, Plain(wrap), Plain(wrap), make_batches())
    assert len(listener.of(StepDone)) == 4


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (lambda x: {"scores": x, "loss": 1}, r"no logits; got keys \['loss', 'scores'\]"),
        (lambda x: None, "no logits; got NoneType"),
        (lambda x: x[:, 0], r"got shape \(1, 64\), expected \(1, 8, vocabulary\)"),
    ],
)
def test_a_model_without_logits_of_the_right_shape_is_refused(
    listener: Listener, wrap: Callable[[torch.Tensor], Any], words: str, make_batches: Callable[..., Any]
) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        run(listener, Plain(wrap), Plain(lambda x: x), make_batches())
    assert caught.value.exit_code == 3


def test_any_form_of_batch_teaches_the_same(teacher: nn.Module, make_model: Callable[..., Any]) -> None:
    ids = torch.randint(4, VOCABULARY, (8, 10))
    mask = torch.ones_like(ids)
    loader = DataLoader(TensorDataset(ids, mask), batch_size=4)
    forms: list[Any] = [
        [{"input_ids": ids[:4]}, {"input_ids": ids[4:]}],
        [ids[:4], ids[4:]],
        [(ids[:4], mask[:4]), (ids[4:], mask[4:], ids[4:])],
        [{"input_ids": ids[:4].tolist(), "attention_mask": mask[:4].tolist()}, ids[4:]],
        loader,
    ]
    losses = []
    for form in forms:
        heard = Listener()
        run(heard, make_model(hidden=16, layers=1, seed=2), teacher, form)
        losses.append([step.loss for step in heard.of(StepDone)])
    assert losses[1:] == losses[:-1]


def test_strings_are_tokenized_on_the_way(
    listener: Listener, student: nn.Module, teacher: nn.Module, tokenizer: Any
) -> None:
    lines = ["互联网是全球最大的网络。", "the network, is large.", "人工智能"]
    run(listener, student, teacher, DataLoader(lines, batch_size=2), tokenizer=tokenizer)
    tokens = sum(
        len(line) + 1 for line in lines
    )  # each character, and the end; the start predicts, nothing predicts it
    assert sum(step.tokens for step in listener.of(StepDone)) == tokens
    shown = listener.of(Observation)[0]
    assert (shown.given, shown.input_text) == ("互联网是", "互联网是全球最大的网络。")


def test_a_generator_without_length_trains_one_epoch_and_is_named_when_empty_in_the_second(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    def generator() -> Iterator[Any]:
        yield from make_batches()

    with pytest.raises(DataError, match=r"epoch 2 has 0 batches.*used up"):
        run(listener, student, teacher, generator(), num_epochs=2)
    assert listener.of(RunStarted)[0].total_steps is None
    assert len(listener.of(StepDone)) == 4


def test_no_data_at_all_is_an_error(listener: Listener, student: nn.Module, teacher: nn.Module) -> None:
    with pytest.raises(DataError, match="epoch 1 has 0 batches"):
        run(listener, student, teacher, [])


def test_a_batch_without_labels_is_skipped_counted_and_told_of_once(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    batches = make_batches()
    empty = {**batches[0], "labels": torch.full_like(batches[0]["input_ids"], -100)}
    verdict = run(listener, student, teacher, [empty, *batches, empty])
    assert len(listener.of(StepDone)) == 4
    assert verdict.skipped_batches == 2
    assert [notice.key for notice in listener.of(Notice)] == ["notice.no_labels"]
    with pytest.raises(DataError, match="no token of epoch 1 has a label"):
        run(listener, student, teacher, [empty])


def test_zero_epochs_leave_the_student_as_it_was(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    before = state(student)
    verdict = run(listener, student, teacher, make_batches(), num_epochs=0)
    assert (verdict.step, verdict.epochs, verdict.first_loss) == (0, 0, None)
    assert state(student) == before


def test_max_steps_overrides_epochs_and_stops_in_the_middle_of_one(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    verdict = run(listener, student, teacher, make_batches(count=4), num_epochs=1, max_steps=6)
    assert (verdict.step, verdict.epochs) == (6, 2)
    assert listener.of(RunStarted)[0].total_steps == 6


def test_max_steps_is_reached_with_data_of_no_length_too(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    class Endless:
        def __iter__(self) -> Iterator[Any]:
            yield from make_batches(count=2)

    verdict = run(listener, student, teacher, Endless(), num_epochs=1, max_steps=5)
    assert (verdict.step, verdict.epochs) == (5, 3)


def test_gradients_left_over_from_before_do_not_count(
    student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    other, first, second = copy.deepcopy(student), Listener(), Listener()
    for p in student.parameters():
        p.grad = torch.ones_like(p)
    run(first, student, teacher, make_batches())
    run(second, other, teacher, make_batches())
    assert [step.grad_norm for step in first.of(StepDone)] == [step.grad_norm for step in second.of(StepDone)]


def test_heads_of_different_width_are_cut_to_the_shared_vocabulary_and_it_is_said_once(
    listener: Listener, teacher: nn.Module, make_model: Callable[..., Any], make_batches: Callable[..., Any]
) -> None:
    wide = make_model(hidden=16, layers=1, vocabulary=VOCABULARY + 6, seed=2)
    run(listener, wide, teacher, make_batches())
    (notice,) = listener.of(Notice)
    assert notice.key == "notice.vocabulary_cut"
    assert notice.values == {"teacher": VOCABULARY, "student": VOCABULARY + 6, "shared": VOCABULARY}


def test_a_student_equal_to_its_teacher_scores_zero(
    listener: Listener, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    run(listener, copy.deepcopy(teacher), teacher, make_batches(), alpha=1.0, max_steps=1)
    assert listener.of(StepDone)[0].kd == pytest.approx(0, abs=1e-6)
    assert listener.of(Observation)[0].normalised_kl == pytest.approx(0, abs=1e-6)
    assert listener.of(Observation)[0].agreement == 1


def test_a_student_that_is_its_teacher_or_shares_a_weight_is_refused(
    listener: Listener, teacher: nn.Module, student: nn.Module, make_batches: Callable[..., Any]
) -> None:
    with pytest.raises(ModelError, match="same model"):
        run(listener, teacher, teacher, make_batches())
    shared = copy.deepcopy(teacher)
    shared.lm_head.weight = teacher.lm_head.weight
    with pytest.raises(ModelError, match=r"shares weights with the teacher; got lm_head\.weight"):
        run(listener, shared, teacher, make_batches())
    with pytest.raises(ModelError, match="no trainable parameter"):
        run(listener, student.requires_grad_(False), teacher, make_batches())


def test_an_optimizer_of_ones_own_keeps_its_rate_and_must_train_the_student(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    own = torch.optim.SGD(student.parameters(), lr=0.05)
    run(listener, student, teacher, make_batches(), optimizer=own)
    assert {step.learning_rate for step in listener.of(StepDone)} == {0.05}
    with pytest.raises(ModelError, match="none of the student's parameters"):
        run(listener, student, teacher, make_batches(), optimizer=torch.optim.SGD(teacher.parameters(), lr=0.1))


def test_the_schedule_warms_up_and_falls(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    """transformers' linear schedule with 2 of 8 steps of warm-up, written out."""
    run(
        listener,
        student,
        teacher,
        make_batches(count=8),
        lr_scheduler_type="linear",
        warmup_ratio=0.25,
        learning_rate=0.8,
    )
    rates = [step.learning_rate for step in listener.of(StepDone)]
    assert rates == pytest.approx([0, 0.4, *(0.8 * (8 - step) / 6 for step in range(2, 8))])


def test_a_scheduler_follows_its_optimizer_and_one_alone_is_refused(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    own = torch.optim.SGD(student.parameters(), lr=0.5)
    halving = torch.optim.lr_scheduler.StepLR(own, 1, gamma=0.5)
    run(listener, student, teacher, make_batches(count=3), optimizer=own, scheduler=halving)
    assert [step.learning_rate for step in listener.of(StepDone)] == [0.5, 0.25, 0.125]
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(own)
    run(listener, student, teacher, make_batches(), optimizer=own, scheduler=plateau)
    with pytest.raises(ConfigError, match="a scheduler needs the optimizer"):
        run(listener, student, teacher, make_batches(), scheduler=halving)


def test_a_single_step_already_learns(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    before = state(student)
    run(listener, student, teacher, make_batches(count=1))
    assert state(student) != before


def test_padding_on_either_side_teaches_the_same_tokens(student: nn.Module, teacher: nn.Module) -> None:
    """What stands after padding on the left has no text to be predicted from."""
    ids, nothing = torch.randint(4, VOCABULARY, (2, 8)), torch.zeros(2, 4, dtype=torch.long)
    ones = torch.ones_like(ids)
    readings = []
    for sides in ((ids, ones), (torch.cat([ids, nothing], 1), torch.cat([ones, nothing], 1)),
                  (torch.cat([nothing, ids], 1), torch.cat([nothing, ones], 1))):  # fmt: skip
        heard = Listener()
        run(heard, copy.deepcopy(student), teacher, [sides])
        (step,) = heard.of(StepDone)
        readings.append((step.tokens, step.loss))
    assert [tokens for tokens, _ in readings] == [14, 14, 14]
    assert readings[1][1] == pytest.approx(readings[0][1], rel=1e-5)
    assert readings[2][1] == pytest.approx(readings[0][1], rel=1e-4)


def test_no_run_inherits_the_state_of_anothers_accelerator(
    student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import Accelerator

    other, first, second = copy.deepcopy(student), Listener(), Listener()
    run(first, student, teacher, make_batches())
    with accelerate_state_of_our_own():  # whatever another test has left
        theirs = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=4)
        with theirs.accumulate(theirs.prepare(nn.Linear(2, 2))):
            pass
        monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
        run(second, other, teacher, make_batches())
        assert (theirs.mixed_precision, theirs.gradient_accumulation_steps) == ("bf16", 4)
        assert not theirs.sync_gradients, "theirs is in the middle of an accumulation, as before"
    for one, two in zip(first.of(StepDone), second.of(StepDone), strict=True):
        assert (one.loss, one.grad_norm) == (two.loss, two.grad_norm)


def test_the_mask_reaches_a_model_inside_a_wrapper(
    listener: Listener, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    class Masked(Plain):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> Any:
            assert attention_mask is not None
            return self.head(self.embed(input_ids))

    run(listener, nn.DataParallel(Masked(lambda x: x)), teacher, make_batches())
    assert len(listener.of(StepDone)) == 4


def test_columns_that_both_rule_out_do_not_hurt(listener: Listener, make_batches: Callable[..., Any]) -> None:
    def wrap(logits: torch.Tensor) -> torch.Tensor:
        return logits.masked_fill(torch.arange(VOCABULARY + 2) >= VOCABULARY, -torch.inf)

    models = [Plain(wrap, vocabulary=VOCABULARY + 2) for _ in range(2)]
    run(listener, *models, make_batches())
    assert all(0 < step.kd < 100 for step in listener.of(StepDone))


def test_weight_decay_pulls_on_matrices_only(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    from apt_model.config.sections import TrainConfig
    from apt_model.distill.setup import make_optimizer

    decayed, kept = make_optimizer(student, TrainConfig(weight_decay=0.1)).param_groups
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in kept["params"]} == {1}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)


def test_a_loss_that_is_not_finite_stops_before_the_step_and_the_weights_stay_finite(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    class Poisoned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.inner = 0, copy.deepcopy(teacher)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            logits: torch.Tensor = self.inner(input_ids=input_ids, attention_mask=attention_mask).logits
            return logits * float("nan") if self.calls >= 3 else logits  # looks at it leave no trace

    with pytest.raises(
        NumericError, match=r"step 3 \(batch 2 of epoch 1\) is not finite: the teacher's logits .*loss nan"
    ) as caught:
        run(listener, student, Poisoned(), make_batches())
    assert caught.value.exit_code == 4
    assert len(listener.of(StepDone)) == 2
    assert all(torch.isfinite(p).all() for p in student.parameters())


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (torch.tensor([[5, 900]]), "outside the student's vocabulary; got 900, expected 0 to 63"),
        (torch.tensor([[5, -3]]), "got -3"),
        ({"input_ids": torch.ones(2, 3)}, r"does not hold integers; got torch\.float32"),
        ({"ids": torch.ones(2, 3)}, r"a batch has no column to learn from; got ids"),
        ((torch.ones(2, 3, dtype=torch.long), torch.tensor([[5, 6, 7]] * 2)), "mask has values other than 0 and 1"),
        ({"input_ids": torch.ones(2, 3).long(), "labels": torch.ones(2, 4).long()}, "differ in shape"),
        (["text"], "no tokenizer that can encode"),
        ({"input_ids": torch.ones(1, 3).long(), "labels": torch.tensor([[5, -1, 7]])}, "label outside.*got -1"),
        ({"input_ids": torch.ones(1, 3).long(), "labels": torch.tensor([[5, 64, 7]])}, "label outside.*got 64"),
        (7, "got int"),
        ([7, 8], "got list of int"),
        (torch.ones(2, 0).long(), "no rows of tokens"),
    ],
)
def test_a_batch_that_cannot_be_learned_from_is_one_clear_line(
    listener: Listener, student: nn.Module, teacher: nn.Module, batch: Any, words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        run(listener, student, teacher, [batch])
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_more_tokens_than_positions_is_refused_before_the_step(listener: Listener, teacher: nn.Module) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    short = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(DataError, match="too long for the student; got 9 tokens, expected at most 8"):
        run(listener, short, teacher, [torch.ones(1, 9, dtype=torch.long)])


def test_a_label_beyond_a_head_is_refused_with_both_sizes(
    listener: Listener, student: nn.Module, teacher: nn.Module
) -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = student

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.inner(input_ids=input_ids).logits[..., :60]

    words = r"label 62, logits for 64 \(teacher\) and 60 tokens \(student\), expected labels below 60"
    with pytest.raises(ModelError, match=words) as caught:
        run(listener, Narrow(), teacher, [torch.tensor([[5, 62, 7]])])
    assert caught.value.exit_code == 3


def test_mixed_precision_trains_and_leaves_no_wrapper(
    listener: Listener, student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    forward = student.forward
    run(listener, student, teacher, make_batches(), mixed_precision="bf16", num_epochs=4)
    epochs = listener.of(EpochFinished)
    assert epochs[-1].mean_loss < epochs[0].mean_loss
    assert student.forward == forward
    assert {p.dtype for p in student.parameters()} == {torch.float32}


def test_the_audience_cannot_touch_a_random_generator(
    student: nn.Module, teacher: nn.Module, make_batches: Callable[..., Any]
) -> None:
    import random

    import numpy as np

    class Gambler(Listener):
        def emit(self, event: Any) -> None:
            random.random()
            np.random.rand()
            torch.rand(1)

    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()
    run(Gambler(), student, teacher, make_batches())
    assert before == (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes())
