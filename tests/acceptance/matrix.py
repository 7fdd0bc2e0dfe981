"""The acceptance matrix: every numbered fault, in a few words, and the tests that prove what we do under each.

Knows nothing of results.
"""

from tests.acceptance.browser import FAULTS_OF_THE_PAGE
from tests.acceptance.lessons import FAULTS_OF_LESSONS
from tests.acceptance.promises import FAULTS_OF_PROMISES
from tests.acceptance.runs import FAULTS_OF_RUNS
from tests.acceptance.shown import FAULTS_OF_THE_DISPLAY

FAULTS = tuple(
    sorted(
        (*FAULTS_OF_RUNS, *FAULTS_OF_LESSONS, *FAULTS_OF_THE_DISPLAY, *FAULTS_OF_THE_PAGE, *FAULTS_OF_PROMISES),
        key=lambda fault: fault.number,
    )
)
