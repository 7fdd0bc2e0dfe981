"""The student of a run: saved whole or not at all; where its run ends in a storage error, kept where it can be.

Knows places and disks; knows nothing of training.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from os.path import samestat
from pathlib import Path
from shutil import disk_usage
from tempfile import gettempdir

from torch import nn

from apt_model.config import LessonConfig
from apt_model.distill.checkpoints.manager import Checkpoints
from apt_model.distill.inputs import Models
from apt_model.errors import StorageError
from apt_model.events.runfile import STUDENT
from apt_model.models.pretrained import save_model
from apt_model.models.readme import Training
from apt_model.models.sharding import is_sharded
from apt_model.models.weights import get_model_size
from apt_model.storage import step_of, why_damaged, write_whole


def with_student(models: Models, student: nn.Module | None) -> Models:
    """The models with a whole student, put together from the shards of all ranks; None, on other ranks: as they are."""
    return models if student is None else replace(models, student=student)


def save_student(models: Models, place: Path, config: LessonConfig, training: Training | None = None) -> None:
    """Save the student whole or not at all.

    Raises:
        StorageError: it could not be written.
    """
    write_whole(
        place,
        partial(
            save_model, models.student, models.tokenizer, merge_adapters=config.train.merge_adapters, training=training
        ),
        about_bytes=round(get_model_size(models.student) * 2**20),
    )


class RunHome:
    """A run directory as it is when the run begins, and where its student is kept if it fails.

    Raises:
        StorageError: the directory cannot be looked at.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            self._own = directory.stat()
        except OSError as error:
            raise StorageError(f"run directory {directory} cannot be read", got=error.strerror) from error

    def with_student(
        self, error: StorageError, models: Models, config: LessonConfig, *, checkpoints: Checkpoints | None, step: int
    ) -> StorageError:
        """The error that ends a run at `step`; names where its student is: in the newest checkpoint, or saved now."""
        newest = checkpoints.newest if checkpoints is not None else None
        is_whole = newest is not None and why_damaged(newest) is None
        error.last_good = checkpoints.last_good() if checkpoints is not None and is_whole else None
        if is_sharded(models.student) and checkpoints is not None and checkpoints.unwritten is not None:
            models = with_student(models, checkpoints.unwritten)
        is_in_shards = is_sharded(models.student)  # which the other processes, that have not failed, do not give now
        if not step or is_in_shards or (newest is not None and is_whole and step_of(newest) == step):
            return error
        fix = f"free some space; the student of step {step} could not be kept anywhere"
        for find in self._places():
            with suppress(OSError, StopIteration):
                place = find()
                disk = next(one for one in place.parents if one.exists())
                if disk_usage(disk).free < 2**20 * get_model_size(models.student):
                    continue  # a file that ends half-way would fill it, and memory where the disk is one of memory
                save_student(models, place, config)
                fix = f"the student of step {step} is kept in {place}; start a new run in another directory"
                break
        told = StorageError(error.what, got=error.got, expected=error.expected, fix=fix)
        told.last_good = error.last_good
        return told

    def _places(self) -> Iterator[Callable[[], Path]]:
        """The best first: in the directory, made anew if it is gone; beside it; here; among temporary files.

        A call raises an OSError where there is no such place.
        """
        yield self._inside
        for folder in (lambda: self._directory.absolute().parent, Path.cwd, lambda: Path(gettempdir())):
            yield partial(self._free, folder)

    def _inside(self) -> Path:
        with suppress(FileNotFoundError):
            if not samestat(self._directory.stat(), self._own):
                raise FileExistsError(f"{self._directory} is another directory now")
        return self._directory / STUDENT

    def _free(self, folder: Callable[[], Path]) -> Path:
        where, name = folder(), f"{self._directory.absolute().name}-{STUDENT}"
        names = (name, *(f"{name}-{turn}" for turn in range(2, 1000)))
        return next(where / one for one in names if not (where / one).exists())
