"""Integration with Hugging Face's Trainer and TRL: a callback that shows a training without changing it."""

from apt_model.integrations.trainer_callback import VisualDistillationCallback

__all__ = ["VisualDistillationCallback"]
