"""Callbacks for other trainers: they train, these only watch and show it."""

from apt_model.integrations.trainer_callback import VisualDistillationCallback

__all__ = ["VisualDistillationCallback"]
