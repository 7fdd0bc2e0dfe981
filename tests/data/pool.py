"""A pooled child that reads hostile files with limits: what it cannot survive is its death, not that of the tests.

`python -m tests.data.pool` answers a JSON request a line. A hang, a death and a raw exception are outcomes like others.
"""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

LIMIT_SECONDS, LIMIT_BYTES = 10.0, 6 * 2**30
Outcome = dict[str, Any]


class Child:
    """One process that answers requests, made anew after a hang or a death."""

    def __init__(self, home: Path, **environment: str) -> None:
        self._home, self._environment = home, environment
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, do: str, **request: Any) -> Outcome:
        """The outcome: `kind` is rows, refused, raw, hang or killed."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"do": do, **request}).encode() + b"\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], LIMIT_SECONDS)[0]:
            self.close()
            return {"kind": "hang"}
        answer = process.stdout.readline()
        if not answer:
            code = process.wait()
            self.close()
            return {"kind": "killed", "said": str(code)}
        outcome: Outcome = json.loads(answer)
        return outcome

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            with suppress(ProcessLookupError):  # it is dead already
                os.killpg(self._process.pid, signal.SIGKILL)  # and whom it started
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()
            self._process = None

    def _start(self) -> "subprocess.Popen[bytes]":
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": root, "HF_HOME": str(self._home), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.data.pool"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**environment, **self._environment},
            cwd=root,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process


def _rows(request: Mapping[str, Any], tell: Any) -> Any:
    """Each row's text out of its tokens, all the way from the file to the batch."""
    import datasets

    from apt_model.data.batch import to_batch
    from apt_model.data.dataset import load_dataset, make_dataloader, split_dataset, tokenize_dataset
    from tests.chats import byte_level

    datasets.config.HF_DATASETS_CACHE = Path(request["cache"])
    tokenizer = byte_level(
        "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m | tojson }}{% endfor %}"
    )
    rows = load_dataset(request["path"], streaming=request.get("streaming", False), tell=tell)
    if request.get("split") and not request.get("streaming") and len(rows) > 1:
        rows, _ = split_dataset(rows, 1)
    tokens = tokenize_dataset(rows, tokenizer, max_length=64, packing=request.get("packing", False), tell=tell)
    texts: list[str] = []
    for raw in make_dataloader(tokens, batch_size=3, shuffle=False):
        batch = to_batch(raw, tokenizer=tokenizer, tell=tell)
        texts += [tokenizer.decode(ids, skip_special_tokens=True) for ids in batch.input_ids]
    return texts


def _settings(request: Mapping[str, Any], tell: Any) -> Any:
    from apt_model.config import LessonConfig
    from apt_model.i18n import Phrases

    if request.get("locale"):
        Phrases.load(request["path"])
    else:
        LessonConfig.from_file(request["path"])
    return []


def _teacher(request: Mapping[str, Any], tell: Any) -> Any:
    """The logits of a cached teacher for rows, as text: equal only if equal to the bit."""
    import torch

    from apt_model.data.batch import to_batch
    from apt_model.distill.teachers.cached import CachedTeacher

    teacher = CachedTeacher(request["path"])
    if request.get("config"):
        teacher.load_config()
        _ = teacher.generation_config
    batch = to_batch(request["rows"])
    teacher.check(batch)
    rows = teacher.top_rows(batch)
    return [str(torch.nan_to_num(part.double()).tolist()) for part in rows]


DO: Mapping[str, Callable[[Mapping[str, Any], Any], Any]] = {"rows": _rows, "settings": _settings, "teacher": _teacher}


def main() -> None:
    """Answer requests until there are no more."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from apt_model.data import dataset  # noqa: F401 - imported before the limit is set
    from apt_model.distill.teachers import cached  # noqa: F401
    from apt_model.errors import AptModelError

    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        request["path"] = os.fsdecode(request["path"].encode("utf-8", "surrogateescape"))  # as a command line gives it
        told: list[str] = []
        started = time.monotonic()
        resource.setrlimit(resource.RLIMIT_FSIZE, (request.get("most", -1), -1))  # bytes of a file that is written
        try:
            found = DO[request["do"]](request, lambda key, /, **values: told.append(key))  # noqa: B023
            outcome = {"kind": "rows", "rows": found, "told": told}
        except AptModelError as error:
            outcome = {"kind": "refused", "said": str(error), "code": error.exit_code}
        except BaseException as error:  # noqa: BLE001 - a raw exception is an outcome
            where = traceback.extract_tb(error.__traceback__)[-1]
            outcome = {"kind": "raw", "said": f"{type(error).__name__}: {error} at {where.filename}:{where.lineno}"}
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        answer = {**outcome, "seconds": time.monotonic() - started, "peak_mb": peak}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
