"""What a resumed run needs besides its counters: the last validation, the place in its data, exam and readings.

Knows what the parts of a lesson keep; knows nothing of training.
"""

from dataclasses import asdict
from typing import Any

from apt_model.distill.exam import Exam
from apt_model.distill.readings import Readings
from apt_model.distill.validation import Validator
from apt_model.events.results import Validation


class LessonState:
    """The state of a run's lesson, as a checkpoint holds it.

    Args:
        validator: measures on validation data; None without any.
        exam, readings: of the run.

    Attributes:
        validation: the last epoch's, without texts; None before the first.
    """

    def __init__(self, *, validator: Validator | None, exam: Exam, readings: Readings) -> None:
        self._validator, self._exam, self._readings = validator, exam, readings
        self.validation: Validation | None = None

    def state_dict(self) -> dict[str, Any]:
        """The state, as JSON values."""
        return {
            "validation": self.validation and {**asdict(self.validation), "pairs": []},
            "looked_at": self._validator.taken if self._validator else 0,
            "exam": self._exam.state_dict(),
            **({"readings": self._readings.state_dict()} if self._readings.has_begun else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of `state_dict`."""
        self.validation = state["validation"] and Validation(**{**state["validation"], "pairs": ()})
        if self._validator is not None:
            self._validator.skip(state["looked_at"])
        if "exam" in state:  # not in a checkpoint from before there were exams
            self._exam.load_state_dict(state["exam"])
        if "readings" in state:
            self._readings.load_state_dict(state["readings"])
