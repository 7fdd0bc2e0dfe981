"""The numbered faults, in a few words, and the tests that prove what we do under each.

A test is named by its file below `tests/` and its function. Knows nothing of results.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A case of the matrix.

    Attributes:
        number: as in the matrix.
        what: in a few words, with what has to happen.
        tests: "file::function".
        short: what is not met yet, if anything.
    """

    number: int
    what: str
    tests: tuple[str, ...]
    short: str = ""


_RESUME, _KILLS, _HOSTILE = (
    "distill/checkpoints/test_resume.py",
    "distill/checkpoints/test_kills.py",
    "distill/test_hostile.py",
)
_LOOP, _SIGNALS, _GUIDE = "distill/test_loop.py", "test_signals.py", "plugins/test_guide.py"
_SANE, _CARDS, _TEACHING = "render/test_sanitise.py", "render/test_cards.py", "teaching/test_teaching.py"


def of(file: str, *names: str) -> tuple[str, ...]:
    """Tests of a file, by their names without `test_`."""
    return tuple(f"{file}::test_{name}" for name in names)


_SAME = "plugins/test_same_student.py"
_STOPPED = "a_stopped_process_says_one_line_and_resumed_ends_with_the_bytes_of_one_never_stopped"
_ONE_LINE = "a_batch_that_cannot_be_learned_from_is_one_clear_line"
_MISTAKE = of("test_cli.py", "a_mistake_is_one_line_with_its_exit_code")
_BAD_VALUE = of("test_config.py", "a_bad_value_is_one_line_that_names_key_value_and_what_is_expected")
_SETTINGS = "test_hostile_settings.py"
_ANY_CONFIG = (
    *of("test_config.py", "whatever_the_values_either_a_lesson_or_a_config_error"),
    *of(_SETTINGS, "any_nested_values_are_a_lesson_or_one_config_error"),
)
_ANY_FILE_OF_SETTINGS = of(
    _SETTINGS,
    "any_toml_file_is_a_lesson_or_one_config_error",
    "any_flags_are_a_lesson_or_one_config_error",
    "any_description_of_a_student_is_sizes_a_name_or_one_config_error",
)
_ENDINGS = "distill/test_endings.py"
_ANY_TEXT = of(_SANE, "sanitised_text_has_no_control_is_encodable_bounded_and_stays_as_it_is")

FAULTS = (
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
    Fault(
        10,
        "loss or gradient not finite: exit 4 before the step",
        (
            *of(_LOOP, "a_loss_that_is_not_finite_stops_before_the_step_and_the_weights_stay_finite"),
            *of(
                _ENDINGS,
                "gradients_that_no_scale_makes_finite_end_the_run",
                "a_loss_that_is_not_finite_for_once_is_skipped_under_fp16_too",
            ),
        ),
    ),
    Fault(
        11,
        "teacher's logits NaN: exit 4; -inf columns work",
        (
            *of(_SIGNALS, "a_teacher_of_nan_is_one_line_with_exit_code_four"),
            *of(_LOOP, "columns_that_both_rule_out_do_not_hurt"),
            *of(
                "distill/losses/test_reference.py",
                "what_the_teacher_rules_out_counts_nothing",
                "what_stands_where_nothing_is_to_be_learned_cannot_spoil_the_loss",
            ),
        ),
    ),
    Fault(12, "temperature 0, negative, NaN, inf, string, bool: exit 2", (*_BAD_VALUE, *_ANY_CONFIG)),
    Fault(
        13,
        "T² scale has a golden test",
        of(
            "distill/losses/test_reference.py",
            "t_squared_keeps_the_gradient_of_the_same_size_and_temperature_changes_it",
        ),
    ),
    Fault(14, "alpha, beta NaN, out of range, not summing to 1: exit 2", (*_BAD_VALUE, *_MISTAKE, *_ANY_CONFIG)),
    Fault(
        15,
        "batch all -100: skipped, counted; all so: exit 3",
        of(_LOOP, "a_batch_without_labels_is_skipped_counted_and_told_of_once"),
    ),
    Fault(
        16,
        "escape codes shown as symbols",
        (*_ANY_TEXT, *of(_CARDS, "a_hostile_card_touches_no_cell_but_its_own")),
    ),
    Fault(
        22,
        "no remote code; safetensors only",
        of("models/test_pretrained.py", "a_models_own_config_cannot_switch_on_remote_code"),
    ),
    Fault(23, "SIGTERM: step finished, saved, 143", of(_SIGNALS, _STOPPED)),
    Fault(
        24,
        "SIGINT: 130; twice: at once",
        of(_SIGNALS, _STOPPED, "ctrl_c_twice_ends_at_once_with_whole_checkpoints_and_the_run_goes_on_the_same"),
    ),
    Fault(
        28,
        "two writers: the second exits 5 with the PID",
        of(_RESUME, "a_second_writer_is_refused_with_the_first_ones_pid_and_a_dead_ones_lock_counts_for_nothing"),
    ),
    Fault(
        29,
        "other batch size, data or config on resume: exit 2",
        of(_RESUME, "settings_sizes_and_data_that_are_not_what_they_were_are_listed"),
        "world size: the issue on several processes",
    ),
    Fault(
        30,
        "absurd step in a state: exit 5",
        of(_HOSTILE, "an_absurd_number_in_the_state_is_refused"),
    ),
    Fault(
        31,
        "head width: exit 3, both sizes",
        of(
            _LOOP,
            "a_label_beyond_a_head_is_refused_with_both_sizes",
            "heads_of_different_width_are_cut_to_the_shared_vocabulary_and_it_is_said_once",
        ),
    ),
    Fault(32, "[B, L] mismatch: exit 3", of(_LOOP, "a_model_without_logits_of_the_right_shape_is_refused")),
    Fault(
        33,
        "any form of model output",
        of(_LOOP, "any_form_of_logits_is_accepted", "a_model_without_logits_of_the_right_shape_is_refused"),
    ),
    Fault(
        34,
        "any form of batch; else exit 3",
        (
            *of(_LOOP, "any_form_of_batch_teaches_the_same", "strings_are_tokenized_on_the_way", _ONE_LINE),
            *of(_HOSTILE, "whatever_a_loader_yields_is_a_batch_or_a_data_error"),
            *of("data/test_hostile_data.py", "any_file_gives_a_batch_or_a_data_error"),
        ),
    ),
    Fault(35, "empty dataset: exit 3", of(_LOOP, "no_data_at_all_is_an_error")),
    Fault(
        36,
        "data of no length",
        (
            *of(_LOOP, "a_generator_without_length_trains_one_epoch_and_is_named_when_empty_in_the_second"),
            *of(_ENDINGS, "a_rate_that_cannot_follow_its_schedule_is_told_of_once"),
        ),
    ),
    Fault(
        37,
        "one-shot generator: exit 3 names the epoch",
        of(_LOOP, "a_generator_without_length_trains_one_epoch_and_is_named_when_empty_in_the_second"),
    ),
    Fault(38, "num_epochs 0: no step", of(_LOOP, "zero_epochs_leave_the_student_as_it_was")),
    Fault(39, "sample_frequency 0, negative, float: exit 2", (*_BAD_VALUE, *_MISTAKE)),
    Fault(40, "unknown key: did you mean", (*_BAD_VALUE, *_MISTAKE, *_ANY_FILE_OF_SETTINGS)),
    Fault(41, "wrong type: exit 2 naming the key", (*_BAD_VALUE, *_ANY_CONFIG)),
    Fault(
        42,
        "cuda without one: CPU with a warning; CLI exit 2",
        (
            *of(_GUIDE, "every_config_of_the_guide_runs"),
            *_MISTAKE,
            *of(_SETTINGS, "any_device_is_one_or_one_config_error"),
        ),
    ),
    Fault(
        43,
        "tokenizer None or broken: a placeholder",
        of(
            _GUIDE,
            "a_tokenizer_that_is_missing_or_broken_gives_placeholders_and_the_same_student",
            "the_dummy_tokenizer_works",
        ),
    ),
    Fault(
        44,
        "ids that are no token: filtered",
        of("distill/losses/test_readout.py", "ids_that_are_no_token_are_left_out"),
    ),
    Fault(
        45,
        "ids beyond the vocabulary, sequence too long: exit 3",
        of(_LOOP, _ONE_LINE, "more_tokens_than_positions_is_refused_before_the_step"),
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
    Fault(
        47,
        "huge vocabulary: chunked, estimate; out of memory: exit 4",
        (
            *of("distill/losses/test_fused.py", "a_chunk_fits_its_budget"),
            *of(
                "doctor/test_memory.py",
                "a_steps_memory_is_the_sum_of_its_parts",
                "a_step_that_runs_out_of_memory_ends_with_the_remedy_and_the_last_good_checkpoint",
            ),
            *of("doctor/test_examine.py", "too_little_memory_is_told", "a_model_too_large_for_the_machine_is_wrong"),
        ),
    ),
    Fault(
        48,
        "teacher is the student: refused; its bytes unchanged",
        of(
            _LOOP,
            "a_student_that_is_its_teacher_or_shares_a_weight_is_refused",
            "a_student_learns_and_its_teacher_is_untouched",
        ),
    ),
    Fault(49, "[/], :smile: literal", of(_SANE, "what_each_kind_of_character_becomes")),
    Fault(
        50,
        "bidi, tags neutralised; columns align",
        (*_ANY_TEXT, *of(_CARDS, "hostile_text_keeps_the_borders_where_they_are")),
    ),
    Fault(
        51,
        "surrogates, ASCII, closed stdout, broken pipe",
        (
            *of(_SANE, "fitted_text_can_be_encoded"),
            *of(
                "test_cli.py",
                "a_reader_that_goes_away_does_not_end_the_run",
                "an_ascii_terminal_gets_an_english_lesson_in_ascii",
            ),
            *of(_GUIDE, "a_closed_standard_output_ends_the_display_not_the_training"),
        ),
    ),
    Fault(52, "a 10 MB line: 50 ms at most", of(_SANE, "ten_megabytes_cost_no_more_than_a_short_line")),
    Fault(
        53, "diff input at most 1,000 characters", of(_TEACHING, "similarity_looks_at_a_thousand_characters_at_most")
    ),
    Fault(
        59,
        "statistics before training, with NaN",
        (
            *of(_TEACHING, "laziness_stays_within_bounds_whatever_was_measured"),
            *of(_GUIDE, "statistics_are_readable_before_training_and_after_none"),
        ),
    ),
    Fault(
        60,
        "100,000 displays; topics capped",
        of(
            _TEACHING,
            "a_hundred_thousand_cards_take_no_more_memory_than_a_thousand",
            "topics_without_end_are_capped",
        )
        + of(
            _KILLS,
            "a_long_run_killed_again_and_again_ends_the_same_with_one_record_and_bounded_memory",
        ),
    ),
)
ALSO_FUZZED = of(_HOSTILE, "a_damaged_record_is_read_or_refused")
