"""The judge names the rank that is stuck or gone, and leaves the slow ones alone."""

import pytest

from apt_model.ranks.judge import Lost, Seen, missing, stuck
from apt_model.ranks.signs import Sign

PATIENCE, START = 15.0, 600.0


def sign(phase: str, *, step: int = 3, still: float = 0.0, idle: float = 0.0, waits_for: str = "") -> Sign:
    return Sign(beat=1, step=step, phase=phase, waits_for=waits_for, still=still, idle=idle)


def test_a_rank_whose_process_has_ended_is_lost_at_once() -> None:
    seen = {1: Seen(sign("forward"), silent=0.2, has_ended=True)}
    assert missing(seen, PATIENCE, 3, START) == Lost(1, "did not come to step 3: its process has ended")


def test_a_rank_that_left_the_run_before_its_process_ended_is_not_lost() -> None:
    assert missing({1: Seen(sign("out"), silent=99, has_ended=True)}, PATIENCE, 3, START) is None


def test_a_silent_rank_is_lost_after_the_patience_and_later_if_its_machine_sees_it_compute() -> None:
    assert missing({1: Seen(sign("data"), silent=14.9)}, PATIENCE, 3, START) is None
    assert missing({1: Seen(sign("data"), silent=15)}, PATIENCE, 3, START) == Lost(
        1, "did not come to step 3: no sign for 15 s"
    )
    assert missing({1: Seen(sign("data"), silent=500, computes=True)}, PATIENCE, 3, START) is None


def test_ranks_may_take_minutes_to_start() -> None:
    assert missing({1: Seen(None, silent=500, has_come=False)}, PATIENCE, 0, START) is None
    lost = missing({1: Seen(None, silent=600, has_come=False)}, PATIENCE, 0, START)
    assert lost == Lost(1, "did not start: no sign for 600 s")


def test_a_rank_that_has_come_and_gives_no_sign_is_lost_after_the_patience() -> None:
    assert missing({1: Seen(None, silent=14)}, PATIENCE, 0, START) is None
    assert missing({1: Seen(None, silent=15)}, PATIENCE, 0, START) == Lost(1, "did not start: no sign for 15 s")


def test_a_rank_that_waits_for_a_user_is_never_stuck() -> None:
    waits = sign("start-up", still=9999, idle=9999, waits_for="rank 0")
    assert stuck({0: sign("outside", still=9999, idle=9999), 1: waits}, PATIENCE) is None


@pytest.mark.parametrize("phase", ["data", "forward", "optimizer", "save", "validation"])
def test_an_idle_rank_is_stuck_once_it_is_behind_and_nobody_moves(phase: str) -> None:
    ahead = sign("backward", step=4, still=20, idle=20)
    lost = stuck({0: ahead, 1: sign(phase, still=21, idle=16)}, PATIENCE)
    assert lost == Lost(1, f"did not come to step 3: stuck in {phase} for 16 s, and the others wait")


def test_nobody_is_stuck_while_somebody_moves() -> None:
    assert (
        stuck({0: sign("backward", still=20, idle=20), 1: sign("data", still=99, idle=99), 2: sign("forward")}, 15)
        is None
    )


def test_a_rank_that_computes_is_slow_for_ten_minutes_in_a_step_and_without_end_in_a_validation() -> None:
    ahead = sign("backward", step=3, still=1000, idle=1000)
    assert stuck({0: ahead, 1: sign("forward", still=590, idle=2)}, PATIENCE) is None
    assert stuck({0: ahead, 1: sign("forward", still=600, idle=2)}, PATIENCE) == Lost(
        1, "did not come to step 3: computing in forward for 600 s, and the others wait"
    )
    behind = sign("validation", step=2, still=9000, idle=0.5)
    assert stuck({0: ahead, 1: behind}, PATIENCE) is None


def test_one_that_others_wait_for_in_an_agreement_is_named_and_not_those_who_wait() -> None:
    waits = sign("save", still=30, idle=30, waits_for="1.4: save a checkpoint")
    assert stuck({0: sign("save", still=30, idle=30), 1: waits}, PATIENCE) is not None
    assert stuck({0: sign("save", still=30, idle=1), 1: waits}, PATIENCE) is None
    lost = stuck({0: sign("save", still=30, idle=30), 1: waits}, PATIENCE)
    assert lost is not None
    assert lost.rank == 0


def test_ranks_that_all_wait_for_the_same_storage_have_ten_times_the_patience() -> None:
    both = {rank: sign("data", still=100, idle=100) for rank in (0, 1)}
    assert stuck(both, PATIENCE) is None
    assert stuck({rank: sign("data", still=150, idle=150) for rank in (0, 1)}, PATIENCE) is not None


def test_ranks_that_wait_for_each_other_in_different_places_are_told_so() -> None:
    one, two = (sign("data", still=23, idle=23, waits_for=what) for what in ("1.4: save", "1.4: validate"))
    assert stuck({0: one, 1: two}, PATIENCE) == Lost(
        0, "waits for the others, and they for it: 1.4: save, 1.4: validate"
    )
