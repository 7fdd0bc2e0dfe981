"""The numbered faults of settings, models and data, and of the loss that comes of them; with the tests of each."""

from tests.acceptance.fault import Fault, of

_HOSTILE = "distill/test_hostile.py"
_LOOP = "distill/test_loop.py"
_SIGNALS = "test_signals.py"
_GUIDE = "plugins/test_guide.py"
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

FAULTS_OF_LESSONS = (
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
        22,
        "no remote code; safetensors only",
        of("models/test_pretrained.py", "a_models_own_config_cannot_switch_on_remote_code"),
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
        of("distill/test_reporter.py", "ids_that_are_no_token_are_left_out"),
    ),
    Fault(
        45,
        "ids beyond the vocabulary, sequence too long: exit 3",
        of(_LOOP, _ONE_LINE, "more_tokens_than_positions_is_refused_before_the_step"),
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
    Fault(
        68,
        "a model that sees what follows: exit 3 before the first step",
        (
            *of(
                "models/test_causality.py",
                "a_model_that_sees_what_follows_is_refused_with_one_line",
                "a_mask_off_by_one_is_found_and_modes_and_generators_stay_as_they_were",
                "a_causal_family_is_let_pass",
            ),
            *of("distill/test_checks.py", "the_loop_refuses_an_encoder_before_the_first_step"),
        ),
    ),
)
