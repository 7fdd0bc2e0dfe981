"""Reports of losses: padding and prompts in the divergence, means of means, an identical student.

Right values: the formula written out in float64, transformers' own loss.
"""

import copy
import math

import pytest
import torch

from tests.reports.kit import row_losses, steps_of, tiny

ROWS = [([1, 20, 31, 42, 53, 2], 3), ([1, 60, 2], 1), ([1, 80, 91, 102, 113, 124, 135, 2], 6)]  # ids; prompt's length


def batch_of(rows: list[tuple[list[int], int]], pad: int = 0) -> dict[str, torch.Tensor]:
    longest = max(len(ids) for ids, _ in rows)
    padded = [ids + [pad] * (longest - len(ids)) for ids, _ in rows]
    mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows]
    labels = [[-100] * given + ids[given:] + [-100] * (longest - len(ids)) for ids, given in rows]
    return {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(mask), "labels": torch.tensor(labels)}


def test_neither_padding_nor_prompts_are_part_of_the_divergence() -> None:
    # peremartra/optipfair#34, jxiw/MambaInLlama#11: KL over padding made strategies look different that are not
    student, teacher = tiny(spread=4.0), tiny(seed=1, spread=4.0)
    total, count = 0.0, 0
    for ids, given in ROWS:
        with torch.no_grad():
            p, q = (
                model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1) for model in (teacher, student)
            )
        kl = (p.exp() * (p - q)).sum(-1)[given - 1 : -1]
        total, count = total + float(kl.sum()), count + len(kl)
    (step,) = steps_of(student, teacher, [batch_of(ROWS, pad=77)], max_steps=1)
    assert step.kd == pytest.approx(total / count, rel=1e-4)
    assert step.tokens == count


def test_batches_that_are_accumulated_give_the_step_of_one_batch() -> None:
    # huggingface/transformers#24725, #34191, huggingface/trl#6006, ml-explore/mlx-lm#1413
    (whole,) = steps_of(tiny(), tiny(seed=1), [batch_of(ROWS)], max_steps=1)
    apart = [batch_of([row]) for row in ROWS]
    (summed,) = steps_of(tiny(), tiny(seed=1), apart, max_steps=1, gradient_accumulation_steps=3)
    assert (summed.loss, summed.grad_norm) == pytest.approx((whole.loss, whole.grad_norm), rel=1e-4)
    labels = [(ids, [-100] * given + ids[given:]) for ids, given in ROWS]
    assert summed.ce == pytest.approx(row_losses(tiny(), labels), rel=1e-4)


def test_the_batches_left_over_at_an_epochs_end_are_learned() -> None:
    # ml-explore/mlx-lm#1413: the last window, shorter than the others, was dropped
    student = tiny()
    steps = steps_of(student, tiny(seed=1), [batch_of([row]) for row in ROWS], gradient_accumulation_steps=2)
    assert sum(step.tokens or 0 for step in steps) == sum(len(ids) - given for ids, given in ROWS)


def test_a_student_equal_to_its_teacher_has_a_divergence_of_zero() -> None:
    # jongwooko/distillm#7: the teacher's entropy was left out of the loss
    teacher = tiny(spread=4.0)
    (step,) = steps_of(copy.deepcopy(teacher), teacher, [batch_of(ROWS)], max_steps=1)
    assert step.kd is not None
    assert math.isclose(step.kd, 0.0, abs_tol=1e-5)


def test_the_teacher_does_not_drop_out() -> None:
    # vrvlive/knowlege-distillation#2, yxuansu/TaCL#11: nobody called eval() on the teacher, whose targets were random
    teacher = tiny("GPT2", seed=1, spread=4.0, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5).train()
    student = tiny("GPT2", spread=4.0)
    (step,) = steps_of(student, teacher, [batch_of(ROWS)], max_steps=1)
    again = tiny("GPT2", seed=1, spread=4.0)
    (right,) = steps_of(tiny("GPT2", spread=4.0), again, [batch_of(ROWS)], max_steps=1)
    assert step.kd == pytest.approx(right.kd, rel=1e-4)
    assert step.ce == pytest.approx(
        row_losses(tiny("GPT2", spread=4.0), [(i, [-100] * g + i[g:]) for i, g in ROWS]), rel=1e-4
    )


def test_the_first_token_of_an_answer_is_learned() -> None:
    # OpenRLHF/OpenRLHF#973, verl-project/verl#3287: a mask shifted by one left it out
    ids = [1, 20, 31, 42, 53, 2]
    ce = []
    for first in (42, 250):  # the answers differ in their first token alone
        row = [*ids[:3], first, *ids[4:]]
        (step,) = steps_of(tiny(spread=4.0), tiny(seed=1), [batch_of([(row, 3)])], max_steps=1)
        assert step.tokens == 3
        assert step.ce == pytest.approx(row_losses(tiny(spread=4.0), [(row, [-100] * 3 + row[3:])]), rel=1e-4)
        ce.append(step.ce)
    assert ce[0] != ce[1]


@pytest.mark.parametrize(("teachers", "students"), [(320, 300), (300, 320)])
def test_heads_of_other_widths_are_compared_over_the_columns_that_both_have(teachers: int, students: int) -> None:
    # NVIDIA/Model-Optimizer#2489, microsoft/LMOps#331, arcee-ai/DistillKit#37 (padded with zeros: new probabilities)
    student = tiny(vocabulary=students, spread=4.0)
    teacher = tiny(vocabulary=teachers, seed=1, spread=4.0)
    ids = torch.tensor([ROWS[0][0]])
    with torch.no_grad():
        p, q = (m(input_ids=ids).logits[0, :, :300].double().log_softmax(-1) for m in (teacher, student))
    kl = (p.exp() * (p - q)).sum(-1)[2:-1].mean()
    (step,) = steps_of(student, teacher, [batch_of(ROWS[:1])], max_steps=1)
    assert step.kd == pytest.approx(float(kl), rel=1e-4)
