"""The numbered faults of a run and its directory: kills, checkpoints, signals, caches; with the tests of each."""

from tests.acceptance.fault import Fault, of

_RESUME = "distill/checkpoints/test_resume.py"
_KILLS = "distill/checkpoints/test_kills.py"
_HOSTILE = "distill/test_hostile.py"
_SIGNALS = "test_signals.py"
_SAME = "plugins/test_same_student.py"
_STOPPED = "a_stopped_process_says_one_line_and_resumed_ends_with_the_bytes_of_one_never_stopped"
_ENDINGS = "distill/test_endings.py"
_RANKS = "ranks/test_group.py"
_PROCESSES = "distill/test_processes.py"
_ALL_LEAVE = "whatever_fails_all_ranks_leave_soon_with_one_line_and_one_code"

FAULTS_OF_RUNS = (
    Fault(
        1,
        "visual run = plain run, to the bit",
        of(
            _SAME,
            "a_visual_run_has_the_weights_optimizer_and_generators_of_a_plain_one_at_every_step",
            "a_display_that_draws_numbers_and_fails_changes_nothing",
        ),
    ),
    Fault(
        2,
        "resume from any step is bit-exact",
        of(
            _RESUME,
            "a_run_broken_off_at_any_step_ends_with_the_same_student_and_the_same_record",
            "the_optimizer_the_schedule_and_the_generators_end_as_they_would_have",
        ),
    ),
    Fault(
        3,
        "the same with random transforms, 0 and 2 workers",
        of(
            _RESUME,
            "data_loader_workers_and_their_random_transforms_go_on_too",
            "a_loader_with_a_generator_of_its_own_goes_on",
        ),
    ),
    Fault(
        4,
        "SIGKILL at any point of a save, at any moment",
        of(
            _KILLS,
            "a_kill_at_any_point_of_a_save_loses_nothing_and_what_was_left_half_is_named",
            "a_kill_at_any_moment_loses_nothing",
        ),
    ),
    Fault(
        5,
        "disk full: exit 5, older checkpoint intact",
        (
            *of(
                _KILLS,
                "a_file_that_may_not_grow_is_one_line_with_what_is_needed_and_the_checkpoint_before_stays",
                "a_full_disk_is_one_line_and_the_checkpoint_before_stays",
                "a_record_that_may_not_grow_ends_the_run_with_a_checkpoint_and_nothing_is_missing_from_it",
                "however_little_room_there_is_a_run_says_one_line_and_leaves_whole_checkpoints",
            ),
            *of(_ENDINGS, "a_student_that_cannot_be_saved_at_the_end_names_the_checkpoint_it_is_in"),
            *of(_RESUME, "a_save_that_fails_anywhere_leaves_the_checkpoint_before_and_nothing_half"),
        ),
    ),
    Fault(
        6,
        "unwritable run directory: exit 5 before the teacher",
        of(_SIGNALS, "a_directory_that_cannot_be_written_is_told_before_the_teacher_is_loaded"),
    ),
    Fault(
        7,
        "damaged checkpoint: named, the one before taken",
        (
            *of(_RESUME, "a_damaged_file_is_named_and_the_checkpoint_before_is_taken"),
            *of(_HOSTILE, "any_damage_to_any_file_is_seen_or_changes_nothing"),
            *of(_SIGNALS, "a_checkpoint_cut_short_is_passed_over_by_name"),
        ),
    ),
    Fault(
        8,
        "optimizer, generators or place missing: exit 5",
        of(
            _HOSTILE,
            "without_a_part_of_its_state_nothing_begins_afresh",
            "without_any_entry_of_its_state_nothing_begins_afresh",
        ),
    ),
    Fault(
        9,
        "nothing is ever unpickled",
        (
            *of("test_house.py", "nothing_of_ours_can_unpickle_anything"),
            *of("test_cli.py", "a_directory_without_safetensors_is_never_unpickled"),
        ),
    ),
    Fault(23, "SIGTERM: step finished, saved, 143", of(_SIGNALS, _STOPPED)),
    Fault(
        24,
        "SIGINT: 130; twice: at once",
        of(_SIGNALS, _STOPPED, "ctrl_c_twice_ends_at_once_with_whole_checkpoints_and_the_run_goes_on_the_same"),
    ),
    Fault(
        25,
        "a rank killed: the others exit 6 and name it, nothing lost",
        (
            *of(_RANKS, "two_processes_agree_and_a_killed_one_is_named", _ALL_LEAVE),
            *of(_PROCESSES, "ranks_killed_at_drawn_moments_lose_nothing"),
        ),
    ),
    Fault(
        26,
        "a rank stalled: exit 6, stacks dumped",
        (
            *of(_RANKS, _ALL_LEAVE),
            *of(
                "ranks/test_judge.py",
                "an_idle_rank_is_stuck_once_it_is_behind_and_nobody_moves",
                "a_silent_rank_is_lost_after_the_patience_and_later_if_its_machine_sees_it_compute",
            ),
        ),
    ),
    Fault(27, "launcher killed: workers gone within 10 s", of(_RANKS, _ALL_LEAVE)),
    Fault(
        28,
        "two writers: the second exits 5 with the PID",
        of(_RESUME, "a_second_writer_is_refused_with_the_first_ones_pid_and_a_dead_ones_lock_counts_for_nothing"),
    ),
    Fault(
        29,
        "other batch size, data or config on resume: exit 2",
        (
            *of(_RESUME, "settings_sizes_and_data_that_are_not_what_they_were_are_listed"),
            *of(_PROCESSES, "another_number_of_processes_is_refused_by_name_or_taken_anyway"),
        ),
    ),
    Fault(
        30,
        "absurd step in a state: exit 5",
        of(_HOSTILE, "an_absurd_number_in_the_state_is_refused"),
    ),
    Fault(
        46,
        "cached teacher: stale exit 3, corrupt made again",
        of(
            "distill/teachers/cache/test_writer.py",
            "a_changed_teacher_tokenizer_or_data_is_refused_by_name",
            "only_the_damaged_shard_is_made_again",
            "a_damaged_order_or_manifest_is_named",
            "a_full_disk_leaves_no_half_file",
        ),
    ),
)
ALSO_FUZZED = of(_HOSTILE, "a_damaged_record_is_read_or_refused")
