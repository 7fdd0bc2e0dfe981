"""Knowledge distillation that you can watch.

The public names load on first use, so that `import apt_model` is fast and touches nothing.
"""

TYPE_CHECKING = False  # to a type checker True: `typing` itself would be most of the time that this import takes
__version__ = "0.1.0"

_HOMES = {
    "AptModelError": "apt_model.errors",
    "CacheSettings": "apt_model.distill.teachers.cache.manifest",
    "CacheWriter": "apt_model.distill.teachers.cache.writer",
    "CachedTeacher": "apt_model.distill.teachers.cached",
    "DisplayConfig": "apt_model.config.sections",
    "DistillConfig": "apt_model.config.sections",
    "DistillationPlugin": "apt_model.plugins.distillation_plugin",
    "Event": "apt_model.events.records",
    "LessonConfig": "apt_model.config",
    "Run": "apt_model.review.run",
    "ScoredObservation": "apt_model.events.records",
    "TerminalSink": "apt_model.render.terminal",
    "TrainConfig": "apt_model.config.sections",
    "VisualDistillationCallback": "apt_model.integrations.trainer_callback",
    "VisualDistillationPlugin": "apt_model.plugins.visual_distillation_plugin",
    "alignment_table": "apt_model.data.alignment",
    "continue_text": "apt_model.generation.talk",
    "create_compressed_model": "apt_model.distill.students.fresh",
    "evaluate_text_quality": "apt_model.generation.evaluator",
    "get_model_size": "apt_model.models.weights",
    "load_dataset": "apt_model.data.dataset",
    "load_model": "apt_model.models.pretrained",
    "quick_visual_distill": "apt_model.plugins.visual_distillation_plugin",
    "read_events": "apt_model.events.runfile",
    "save_model": "apt_model.models.pretrained",
    "show_evaluation": "apt_model.render.evaluation",
    "shrink": "apt_model.distill.students.shrink",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from typing import Any

    from apt_model.config import LessonConfig
    from apt_model.config.sections import DisplayConfig, DistillConfig, TrainConfig
    from apt_model.data.alignment import alignment_table
    from apt_model.data.dataset import load_dataset
    from apt_model.distill.students.fresh import create_compressed_model
    from apt_model.distill.students.shrink import shrink
    from apt_model.distill.teachers.cache.manifest import CacheSettings
    from apt_model.distill.teachers.cache.writer import CacheWriter
    from apt_model.distill.teachers.cached import CachedTeacher
    from apt_model.errors import AptModelError
    from apt_model.events.cards import ScoredObservation
    from apt_model.events.event import Event
    from apt_model.events.runfile import read_events
    from apt_model.generation.evaluator import evaluate_text_quality
    from apt_model.generation.talk import continue_text
    from apt_model.integrations.trainer_callback import VisualDistillationCallback
    from apt_model.models.pretrained import load_model, save_model
    from apt_model.models.weights import get_model_size
    from apt_model.plugins.distillation_plugin import DistillationPlugin
    from apt_model.plugins.visual_distillation_plugin import VisualDistillationPlugin, quick_visual_distill
    from apt_model.render.evaluation import show_evaluation
    from apt_model.render.terminal import TerminalSink
    from apt_model.review.run import Run


def __getattr__(name: str) -> "Any":
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'apt_model' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
