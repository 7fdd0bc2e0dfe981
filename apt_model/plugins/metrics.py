"""The metrics of events by name, as trackers log them. Knows events; knows nothing of trackers."""

import math

from apt_model.events.cards import Reading
from apt_model.events.cards import ScoredObservation as Card
from apt_model.events.event import Event
from apt_model.events.records import EpochFinished, StepDone
from apt_model.render.readings import perplexity_of, summary_of


def numbers(event: Event) -> dict[str, float]:
    """The metrics of an event by name; unknown and non-finite ones are left out."""
    found: dict[str, float | None] = {}
    if isinstance(event, StepDone):
        terms = ("loss", "kd", "ce", "hidden", "attention", "router", "learning_rate", "grad_norm")
        found = {f"train/{key}": getattr(event, key) for key in terms}
        if event.tokens is not None and event.step_seconds:
            found["train/tokens_per_second"] = event.tokens / event.step_seconds
    elif isinstance(event, Card):
        parts = ("laziness", "similarity", "normalised_kl", "agreement", "entropy_gap")
        found = {f"lesson/{key}": getattr(event, key) for key in parts}
    elif isinstance(event, Reading):
        found = _read(event)
    elif isinstance(event, EpochFinished):
        found = {"epoch/mean_loss": event.mean_loss, "epoch/mean_laziness": event.mean_laziness}
        if event.validation is not None:
            keys = ("loss", "kd", "ce", "agreement", "mean_laziness")
            found |= {f"validation/{key}": getattr(event.validation, key) for key in keys}
    return {key: value for key, value in found.items() if value is not None and math.isfinite(value)}


def _read(reading: Reading) -> dict[str, float | None]:
    """What a reading of the fixed rows shows of the student."""
    seen = summary_of(reading)
    if seen is None:
        return {}
    means = {"agreement": seen.agreement.value, "kl": seen.kl.value, "laziness": seen.laziness.value}
    prefix = f"reading/{'unseen' if reading.unseen else 'learned'}"
    return {f"{prefix}/{key}": value for key, value in (means | {"perplexity": perplexity_of(seen.ce)}).items()}
