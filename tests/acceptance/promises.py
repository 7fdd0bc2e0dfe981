"""The numbered faults found by attacks that did not use our tests: resume, records, models, data, endings."""

from tests.acceptance.fault import Fault, of

_DRAWN = "distill/checkpoints/test_drawn.py"
_OTHERS = "distill/checkpoints/test_other_material.py"
_RESUME = "distill/checkpoints/test_resume.py"
_WRITERS = "test_writers.py"
_LOST = "plugins/test_lost.py"
_PROCESSES = "distill/test_processes.py"
_FILES = "data/test_hostile_files.py"
_READERS = "data/test_readers.py"
_MODELS = "models/test_damaged_models.py"
_DIRECTORY = "models/test_directory.py"
_DAMAGED_PAGE = "dashboard/test_page_damaged.py"
_CONSOLE = "commands/test_console.py"

FAULTS_OF_PROMISES = (
    Fault(
        61,
        "stopped or killed anywhere, in any configuration: resumed to the same bytes",
        of(
            _DRAWN,
            "some_runs_drawn_and_killed_end_as_those_that_nobody_killed",
            "five_hundred_runs_drawn_and_killed_end_as_those_that_nobody_killed",
        )
        + of(_OTHERS, "workers_that_lived_on_from_an_epoch_before_are_started_again_and_told_of")
        + of("test_armed.py", "what_leaves_a_run_with_a_fault_is_one_of_ours_and_the_run_can_be_taken_up")
        + of("test_armed.py", "three_hundred_faults_at_drawn_points_and_turns"),
    ),
    Fault(
        62,
        "other rows, teacher, student or tokenizer on resume: exit 2, named",
        of(
            _OTHERS,
            "what_a_run_is_made_of_is_what_it_was_or_the_run_is_refused_by_name",
            "a_cached_teacher_is_told_by_its_teacher_and_what_is_kept_of_it",
            "what_differs_anyway_is_told_and_is_part_of_the_run_from_then_on",
        ),
    ),
    Fault(
        63,
        "a record that another run wrote is never emptied",
        of(
            _RESUME,
            "a_refused_resume_leaves_the_run_as_it_was",
            "a_finished_run_without_its_checkpoints_is_not_begun_anew",
        )
        + of(
            _WRITERS,
            "of_processes_that_begin_at_one_moment_one_writes",
            "of_four_thousand_processes_never_two_write_at_once",
            "a_run_cannot_be_taken_up_while_it_is_trained_but_it_can_be_read",
            "a_record_that_a_second_one_writes_to_is_told_of",
        )
        + of(_PROCESSES, "a_run_of_two_ranks_that_was_cut_goes_on_to_the_same_student"),
    ),
    Fault(
        64,
        "one damaged run: shown as damaged, all others open, strict JSON for the browser",
        of(
            "events/test_damaged_records.py",
            "a_record_damaged_in_any_way_is_shown_as_far_as_it_is_whole",
            "two_thousand_records_damaged_in_any_way",
        )
        + of(
            "dashboard/test_damaged_runs.py",
            "damaged_run_folders_take_nothing_from_the_whole_one",
            "two_thousand_damaged_run_folders",
            "a_disk_that_hangs_keeps_no_other_run_waiting",
            "a_record_that_is_cut_back_or_goes_while_it_is_read_does_no_harm",
            "a_clock_that_jumps_back_only_changes_the_order_of_the_list",
        )
        + of(
            "events/test_parse.py",
            "a_line_that_a_browser_or_a_reader_would_trip_over_is_no_event",
            "what_is_no_file_is_no_record_and_is_not_waited_for",
            "the_name_of_a_folder_is_text_whatever_its_bytes",
        )
        + of("events/test_odd_events.py", "every_field_at_every_end_of_its_type_is_shown")
        + of(
            _DAMAGED_PAGE,
            "a_damaged_run_is_said_to_be_in_the_list_and_over_its_page",
            "a_hundred_odd_lessons_are_drawn",
        ),
    ),
    Fault(
        65,
        "absurd config, tokenizer, index, template: exit 3 naming the file, no endless work",
        of(
            _MODELS,
            "a_mutated_model_loads_or_is_one_error_that_names_its_file",
            "two_thousand_mutated_models_load_or_are_one_error_that_names_its_file",
            "an_absurd_value_is_one_line_with_its_file",
            "a_template_that_is_no_jinja_or_does_not_end_is_named",
            "every_command_names_the_file_in_one_line",
            "a_models_numbers_of_beams_and_tokens_are_told_and_not_used",
            "a_gguf_file_cut_or_flipped_anywhere_loads_or_is_one_error_that_names_it",
        )
        + of(
            _DIRECTORY,
            "what_is_no_file_of_the_directory_is_refused_by_name",
            "an_index_names_only_safetensors_beside_it",
            "no_file_names_attention_code_on_a_hub",
            "a_snapshot_in_a_hubs_cache_is_loaded",
        )
        + of("data/test_template_run.py", "a_template_that_loops_on_one_chat_alone_is_ended_in_any_thread"),
    ),
    Fault(
        66,
        "Ctrl-C and SIGTERM at any moment: one line, 130 and 143",
        of(
            "test_moments.py",
            "a_signal_in_the_first_half_second_is_one_line",
            "three_hundred_signals_in_the_first_seconds",
            "a_second_ctrl_c_in_each_phase_ends_it_with_one_line_and_the_run_goes_on_the_same",
            "signals_while_several_processes_tokenize_leave_none_of_them",
            "a_keyboard_interrupt_that_cannot_be_raised_ends_the_program_all_the_same",
            "a_process_that_another_thread_is_forking_while_the_program_ends_is_not_left_over",
        ),
    ),
    Fault(
        67,
        "run directory or record removed meanwhile: exit 5, the student kept",
        of(
            _LOST,
            "a_run_whose_directory_or_record_is_taken_away_ends_with_five_and_its_student_is_kept",
            "another_run_that_stands_there_when_the_lesson_is_over_keeps_its_student",
            "two_hundred_runs_that_lose_directory_or_record_at_drawn_events",
            "a_disk_that_vanishes_in_the_middle_of_a_run",
        )
        + of(
            "plugins/test_faulty_disk.py",
            "a_disk_that_reports_an_error_only_when_a_file_is_closed_ends_the_run_with_five",
            "a_hundred_runs_on_a_disk_with_drawn_faults",
        )
        + of("test_surroundings.py", "memory_that_runs_out_in_a_save_is_one_line_and_the_checkpoint_before_stays"),
    ),
    Fault(
        69,
        "left padding, flattened batches, packed blocks: the loss of the rows apart",
        of("distill/test_packed_runs.py", "a_step_on_packed_rows_is_that_on_the_rows_apart")
        + of(
            "data/test_ready.py",
            "what_transformers_flattens_is_read_as_rows_that_begin_anew",
            "rows_that_are_padded_on_the_left_are_moved_with_all_that_stands_beside_them",
        ),
    ),
    Fault(
        70,
        "a column, turn or flag that nothing reads: told or refused; rows nested deep too",
        of(
            "data/test_law.py",
            "every_column_takes_part_or_is_told_of_or_refuses_as_the_docs_say",
            "a_row_means_the_same_however_it_is_read",
        )
        + of(
            _FILES,
            "two_thousand_files_are_read_or_refused_in_one_line",
            "a_value_is_refused_by_its_depth_before_it_is_parsed",
            "five_hundred_damaged_caches_are_made_anew",
            "a_file_rewritten_within_the_same_tick_is_read_again",
            "two_thousand_damaged_caches_of_a_teacher_are_refused_or_say_the_same",
        ),
    ),
    Fault(
        71,
        "a folder with other splits, cards, hidden files: only what was asked for",
        of(
            _READERS,
            "a_folder_has_the_splits_that_datasets_sees",
            "files_of_a_folder_that_are_no_data_are_told_of",
            "in_a_folder_what_stands_beside_data_is_told_of_and_not_learned",
        )
        + of(_FILES, "a_folder_within_that_cannot_be_read_is_not_left_out"),
    ),
    Fault(
        72,
        "address, loading word, error: seen on a live terminal",
        of(
            _CONSOLE,
            "a_terminal_is_told_what_is_loading_and_then_shows_the_lesson_alone",
            "the_address_of_the_page_stands_above_the_first_card_of_a_live_terminal",
        ),
    ),
)
