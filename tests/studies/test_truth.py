"""What the lesson says of students whose truth is known is true, and none of it contradicts another part."""

import pytest

from studies.truth import run
from studies.truth_setups import SETUPS, World

SMALL = ("rate 0", "its own teacher, rate 0", "random teacher", "parrot, a short run", "good, short")


@pytest.fixture(scope="module")
def world() -> World:
    return World(0, steps=250)


@pytest.mark.parametrize("name", SMALL)
def test_everything_that_a_lesson_says_of_a_known_student_is_true(name: str, world: World) -> None:
    (setup,) = (one for one in SETUPS if one.name == name)
    claims, _ = run(setup, world, 0, steps=60)
    assert {claim.by for claim in claims} == {"trend", "grade", "advice", "remark"}
    assert [claim for claim in claims if not claim.true or claim.contradicts] == []


def test_there_are_forty_set_ups_and_no_two_of_a_name() -> None:
    assert len({setup.name for setup in SETUPS}) == len(SETUPS) >= 40
