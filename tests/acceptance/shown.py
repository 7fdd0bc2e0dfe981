"""The numbered faults of what is shown of a lesson in terminal and notebook, with the tests of each."""

from tests.acceptance.fault import Fault, of

_KILLS = "distill/checkpoints/test_kills.py"
_GUIDE = "plugins/test_guide.py"
_SANE = "render/test_sanitise.py"
_CARDS = "render/test_cards.py"
_TEACHING = "teaching/test_teaching.py"
_ANY_TEXT = of(_SANE, "sanitised_text_has_no_control_is_encodable_bounded_and_stays_as_it_is")

FAULTS_OF_THE_DISPLAY = (
    Fault(
        16,
        "escape codes shown as symbols",
        (*_ANY_TEXT, *of(_CARDS, "a_hostile_card_touches_no_cell_but_its_own")),
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
