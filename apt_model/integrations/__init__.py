"""The lesson inside other people's trainers. They train; here it is only watched."""

from apt_model.integrations.trainer_callback import VisualDistillationCallback

__all__ = ["VisualDistillationCallback"]
