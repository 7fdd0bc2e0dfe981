"""The numbered faults of the browser page, with the tests that prove what it does under each.

How many milliseconds an audience costs is no matter for a test: see `benchmarks.micro.viewers`, figures in docs/log.md.
"""

from tests.acceptance.fault import Fault, of

_SECURITY, _SERVER, _LOAD = (f"dashboard/test_{name}.py" for name in ("security", "server", "load"))
_HOSTILE, _REPORT, _LIVE = (f"dashboard/test_{name}.py" for name in ("page_hostile", "report", "page_live"))

FAULTS_OF_THE_PAGE = (
    Fault(
        17,
        "markup and scripts in a text: inert on the page and in the report",
        (
            *of(_HOSTILE, "hostile_texts_stay_texts", "texts_are_made_safe_as_the_terminal_does_it"),
            *of(_REPORT, "everything_is_in_it_and_only_what_is_ours_may_run", "hostile_texts_cannot_leave_the_data"),
            *of("dashboard/test_page_sources.py", "no_module_can_turn_text_into_markup_or_code"),
        ),
    ),
    Fault(
        18,
        "another Host: 421 before any handler",
        of(_SECURITY, "another_host_is_misdirected_before_anything_is_looked_at", "two_hosts_are_none"),
    ),
    Fault(
        19,
        "a foreign Origin: 403, whatever the method",
        of(_SECURITY, "a_foreign_origin_is_refused_whatever_it_asks", "our_own_origin_is_let_in_and_only_to_read"),
    ),
    Fault(
        20,
        "paths out of the table: 404",
        (
            *of(_SECURITY, "what_is_not_in_the_table_is_not_there"),
            *of(_SERVER, "a_folder_shows_its_runs_newest_first_and_follows_no_links"),
        ),
    ),
    Fault(
        21,
        "loopback and read-only; beyond it a token, traded for a cookie",
        of(
            _SECURITY,
            "a_token_is_traded_for_a_cookie_and_leaves_the_address",
            "every_answer_says_what_a_browser_may_do_with_it",
        ),
    ),
    Fault(
        54,
        "viewers that take nothing are dropped, the others hear everything",
        of(_LOAD, "viewers_that_take_nothing_are_dropped_while_the_others_hear_everything"),
    ),
    Fault(
        55,
        "malformed, slow, flooding clients: 4xx or 503, the server lives",
        (
            *of(_SECURITY, "a_malformed_request_is_a_4xx_or_nothing_and_the_server_lives"),
            *of(
                _LOAD,
                "a_flood_is_told_to_come_back_and_the_server_lives",
                "a_request_that_does_not_come_to_an_end_is_given_up",
                "a_body_that_never_comes_holds_nothing_up",
                "a_client_that_does_not_take_a_long_answer_is_dropped",
            ),
        ),
    ),
    Fault(56, "port in use: the next one", of(_SERVER, "a_port_that_is_taken_leads_to_the_next_one")),
    Fault(
        57,
        "reconnecting misses nothing; a page's death leaves training alone",
        (
            *of(_SERVER, "a_viewer_that_comes_back_after_the_server_died_misses_nothing_and_hears_nothing_twice"),
            *of(_LIVE, "a_server_killed_and_started_again_loses_and_doubles_nothing"),
            *of("plugins/test_viewer.py", "a_page_that_cannot_be_opened_is_told_of_and_training_goes_on"),
        ),
    ),
    Fault(58, "an event above 64 KB: cut, with a marker", of(_SERVER, "an_event_above_64_kb_is_cut_with_a_marker")),
)
