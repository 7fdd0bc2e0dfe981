"""Runs of drawn configurations, killed at drawn moments and resumed: each must end as the run that nobody killed.

    python -m tests.distill.checkpoints.drawn DIR RUNS [SEED]

Hypothesis draws what a run is made of, and when it is killed, until so many runs were killed and resumed; each process
is forked from this one, which has imported all. Prints one JSON object: how many configurations, kills and resumed
runs, every run that ended otherwise, and what was drawn.
"""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset
from transformers.utils.logging import disable_progress_bar

import apt_model
from apt_model import faults
from apt_model.data.dataset import make_dataloader, tokenize_dataset
from apt_model.distill.teachers.cache.writer import CacheWriter
from apt_model.events.runfile import EVENTS
from apt_model.models.lora import Lora, add_lora
from apt_model.models.pretrained import save_model
from apt_model.storage import newest_snapshot
from tests.chats import byte_level, small_llama
from tests.distill.forks import POINTS, Killer, forked

CLOCKS = ("wall_time", "step_seconds", "seconds", "run_id")
WORDS = ("the", "river", "rises", "in", "hills", "a", "town", "lies", "by", "lakes", "where", "boats", "are", "built")
DATA = ("list", "loader", "global loader", "noise", "noise of its own", "workers", "lasting workers")
DATA += ("noisy workers", "packed", "stream", "texts", "no length", "some without labels")

Drawn = dict[str, Any]


def together(drawn: Drawn) -> Drawn:
    """The same, without what another tokenizer or a cache does not go together with."""
    alone = {"loss": "forward_kl", "hidden": 0.0, "attention": 0.0, "on_policy": 0.0}
    return drawn if drawn["teacher"] == "live" else {**drawn, **alone}


DRAWN = st.fixed_dictionaries(
    {
        "front": st.sampled_from(["python", "python", "python", "command line"]),
        "data": st.sampled_from(DATA),
        "rows": st.integers(5, 26),
        "batch_size": st.integers(1, 4),
        "accumulation": st.integers(1, 6),
        "epochs": st.integers(1, 3),
        "max_steps": st.none() | st.integers(1, 9),
        "save_steps": st.none() | st.integers(1, 4),
        "keep": st.integers(1, 3),
        "dropout": st.sampled_from([0.0, 0.1]),
        "teacher": st.sampled_from(["live", "live", "cached", "other tokenizer"]),
        "student": st.sampled_from(["llama", "llama", "lora"]),
        "loss": st.sampled_from(["forward_kl", "forward_kl", "reverse_kl", "jsd"]),
        "hidden": st.sampled_from([0.0, 0.0, 0.5]),
        "attention": st.sampled_from([0.0, 0.0, 0.5]),
        "on_policy": st.sampled_from([0.0, 0.0, 0.5]),
        "optimizer": st.sampled_from(["own", "own", "sgd and steps", "adam and plateau"]),
        "schedule": st.sampled_from(["linear", "cosine", "constant_with_warmup"]),
        "precision": st.sampled_from(["no", "no", "bf16"]),
        "visual": st.booleans(),
        "validation": st.sampled_from(["none", "list", "shuffled"]),
        "show_on": st.sampled_from(["train", "validation"]),
        "exam_frequency": st.none() | st.integers(1, 4),
        "reading_frequency": st.none() | st.integers(1, 4),
        "seed": st.none() | st.integers(0, 9),
    }
).map(together)
MOMENT = st.one_of(
    st.tuples(st.just("step"), st.integers(1, 12), st.sampled_from(["SIGKILL", "SIGTERM", "SIGINT"])),
    st.tuples(st.sampled_from(POINTS), st.integers(1, 6), st.sampled_from(["SIGKILL", "ENOSPC", "EIO"])),
    st.tuples(st.just("second"), st.floats(0.01, 0.5), st.just("SIGKILL")),
    st.tuples(st.just("shorter"), st.integers(1, 6), st.sampled_from(["max_steps", "epochs"])),
)
KILLS = st.lists(MOMENT, min_size=1, max_size=3)


class Noisy(Dataset[Any]):
    """Rows that a random transform changes each time they are read: by the global generators, or by its own."""

    def __init__(self, ids: torch.Tensor, *, own: bool) -> None:
        self._ids, self._dice = ids, random
        self._numpy: Any = np.random
        self._torch: torch.Generator | None = None
        if own:
            self._dice, self._numpy = random.Random(3), np.random.default_rng(4)  # type: ignore[assignment]
            self._torch = torch.Generator().manual_seed(5)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = self._dice.randrange(3) + int(self._numpy.random() * 3)
        return (self._ids[index] + noise + torch.randint(3, self._ids[index].shape, generator=self._torch)) % 256 + 7


class NoLength:
    """Batches that can be read again and again, but not counted."""

    def __init__(self, batches: list[torch.Tensor]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from self._batches


def texts(count: int, start: int = 0) -> list[str]:
    dice = random.Random(start)
    return [" ".join(dice.choices(WORDS, k=dice.randint(2, 6))) for _ in range(count)]


def data_of(drawn: Drawn, tokenizer: Any, *, start: int = 0) -> Any:
    """The training data, made anew as in another process."""
    kind, count, size = drawn["data"], drawn["rows"], drawn["batch_size"]
    if drawn["teacher"] == "other tokenizer" or kind == "texts":
        lines = texts(count, start)
        return [lines[at : at + size] for at in range(0, count, size)]
    ids = torch.randint(7, 263, (count, 7), generator=torch.Generator().manual_seed(start + 1))
    own = torch.Generator().manual_seed(6)
    if kind in ("packed", "stream") or drawn["teacher"] == "cached":
        rows: Any = datasets.Dataset.from_dict({"text": texts(count, start)})
        if kind == "stream" and drawn["teacher"] != "cached":
            rows = rows.to_iterable_dataset(num_shards=2)
            return make_dataloader(tokenize_dataset(rows, tokenizer, max_length=24), batch_size=size, seed=2)
        packed = tokenize_dataset(rows, tokenizer, max_length=24, packing=kind == "packed")
        return make_dataloader(packed, batch_size=size, seed=2)
    if kind in ("loader", "workers", "lasting workers"):
        rows = [{"input_ids": row.tolist()} for row in ids]
        how = {"num_workers": 2 * (kind != "loader"), "persistent_workers": kind == "lasting workers"}
        return DataLoader(rows, batch_size=size, shuffle=True, generator=own, collate_fn=list, **how)
    if kind == "global loader":
        return DataLoader(ids, batch_size=size, shuffle=True)  # type: ignore[arg-type]
    if kind in ("noise", "noise of its own", "noisy workers"):
        noisy = Noisy(ids, own=kind == "noise of its own")
        return DataLoader(noisy, batch_size=size, shuffle=True, num_workers=2 * (kind == "noisy workers"))
    batches = list(ids.split(size))
    if kind == "some without labels":
        labels = [batch if turn % 3 else torch.full_like(batch, -100) for turn, batch in enumerate(batches)]
        return [{"input_ids": batch, "labels": some} for batch, some in zip(batches, labels, strict=True)]
    return NoLength(batches) if kind == "no length" else batches


def validation_of(drawn: Drawn, tokenizer: Any) -> Any:
    if drawn["validation"] == "none":
        return None
    if drawn["teacher"] == "cached":
        return data_of(drawn, tokenizer)
    if drawn["teacher"] == "other tokenizer":
        return data_of({**drawn, "rows": 4}, tokenizer, start=50)
    ids = torch.randint(7, 263, (5, 7), generator=torch.Generator().manual_seed(9))
    own = torch.Generator().manual_seed(8)
    is_shuffled = drawn["validation"] == "shuffled"
    return DataLoader(ids, batch_size=2, shuffle=True, generator=own) if is_shuffled else list(ids.split(2))  # type: ignore[arg-type]


def teacher_of(drawn: Drawn, tokenizer: Any, root: Path) -> tuple[Any, Any]:
    """The teacher, and its own tokenizer."""
    model = small_llama(1, hidden=16, layers=2)
    if drawn["teacher"] == "cached":
        if not (root / "cache").exists():
            rows = data_of(drawn, tokenizer).dataset
            how = {"k": 8, "temperature": 4.0, "value_type": "log8", "max_length": 24}
            settings_of_cache = apt_model.CacheSettings(**how, packing=drawn["data"] == "packed")
            CacheWriter(model, rows, settings=settings_of_cache, tokenizer=tokenizer).run(root / "cache")
        return apt_model.CachedTeacher(root / "cache"), None
    if drawn["teacher"] == "other tokenizer":
        return model, byte_level(turned=True)
    return model, None


def config_of(drawn: Drawn, *, crosses: bool) -> dict[str, Any]:
    """The settings."""
    config = {
        **{key: drawn[key] for key in ("max_steps", "save_steps", "on_policy", "seed")},
        **{key: drawn[key] for key in ("exam_frequency", "reading_frequency")},
        "gradient_accumulation_steps": drawn["accumulation"],
        "save_total_limit": drawn["keep"],
        "loss_kind": drawn["loss"],
        "hidden_weight": drawn["hidden"],
        "attention_weight": drawn["attention"],
        "on_policy_tokens": 4,
        "lr_scheduler_type": drawn["schedule"],
        "mixed_precision": drawn["precision"],
        "show_on": drawn["show_on"] if drawn["validation"] != "none" else "train",
        "cross_tokenizer": "kl" if crosses else "refuse",
        "learning_rate": 0.01,
        "warmup_ratio": 0.0 if drawn["schedule"] == "constant_with_warmup" else 0.3,
        "max_length": 24,
        "sample_frequency": 3,
        "exam_tokens": 3,
        "lang": "en",
    }
    return {key: value for key, value in config.items() if value is not None}


def command(drawn: Drawn, root: Path, run: Path, *, anyway: bool) -> None:
    """The run by `apt-model distill`, with a control where there can be one."""
    from apt_model.cli import main as apt_model_main

    tokenizer, crosses = byte_level(), drawn["teacher"] == "other tokenizer"
    if not (root / "texts.jsonl").exists():
        save_model(small_llama(1, hidden=16, layers=2), byte_level(turned=crosses), root / "teacher")
        save_model(small_llama(2, hidden=8, attention_dropout=drawn["dropout"]), tokenizer, root / "student")
        lines = [json.dumps({"text": line}) for line in texts(drawn["rows"])]
        (root / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
        (root / "seen.jsonl").write_text("\n".join(lines[:3]), encoding="utf-8")
    how = ["--batch-size", drawn["batch_size"], "--out", run, "--no-doctor", "--device", "cpu"]
    if drawn["teacher"] == "cached":
        if not (root / "cache").exists():
            made = ["--teacher", root / "teacher", "--data", root / "texts.jsonl", "--out", root / "cache"]
            assert apt_model_main(["cache-teacher", *map(str, made), "--max-length", "24", "--lang", "en"]) == 0
        how += ["--teacher-cache", root / "cache"]
    else:
        how += ["--teacher", root / "teacher"]
    if drawn["data"] == "packed" and drawn["teacher"] == "live":
        how += ["--packing"]
    elif drawn["data"] == "stream" and drawn["teacher"] == "live":
        how += ["--streaming"]
    if drawn["validation"] != "none":
        how += ["--validation-data", root / "seen.jsonl"]
        if drawn["teacher"] == "live" and not anyway and drawn["student"] == "llama":
            how += ["--control"]
    if drawn["student"] == "lora":
        how += ["--lora", f"r=2,dropout={drawn['dropout']}"]
    if not drawn["visual"]:
        how += ["--plain"]
    if (run / EVENTS).exists():
        how += ["--resume-anyway" if anyway else "--resume"]
    for key, value in {**config_of(drawn, crosses=crosses), "num_epochs": drawn["epochs"]}.items():
        how += [f"--{key.replace('_', '-')}", value]
    arguments = ["distill", "--student", root / "student", "--data", root / "texts.jsonl", *how]
    code = apt_model_main(list(map(str, arguments)))
    if code:
        sys.stderr.flush()
        os._exit(code)


def train(drawn: Drawn, root: Path, run: Path, sinks: Any = (), *, anyway: bool = False) -> None:
    """Begin the run, or go on with it; `anyway`: although it was shorter."""
    if drawn["front"] == "command line":
        command(drawn, root, run, anyway=anyway)
        return
    tokenizer = byte_level()
    teacher, theirs = teacher_of(drawn, tokenizer, root)
    student: Any = small_llama(2, hidden=8, layers=2, attention_dropout=drawn["dropout"])
    if drawn["student"] == "lora":
        torch.manual_seed(3)
        student = add_lora(student, Lora(r=2, dropout=drawn["dropout"]))
    config = config_of(drawn, crosses=theirs is not None)
    more: dict[str, Any] = {}
    trained = [one for one in student.parameters() if one.requires_grad]
    if drawn["optimizer"] == "sgd and steps":
        more["optimizer"] = torch.optim.SGD(trained, lr=0.1, momentum=0.9)
        more["scheduler"] = torch.optim.lr_scheduler.MultiStepLR(more["optimizer"], [2, 5])
    elif drawn["optimizer"] == "adam and plateau":
        more["optimizer"] = torch.optim.Adam(trained, lr=0.01)
        more["scheduler"] = torch.optim.lr_scheduler.ReduceLROnPlateau(more["optimizer"], patience=1)
    if drawn["seed"] is None:
        torch.manual_seed(4), random.seed(4), np.random.seed(4)
    plugin: Any = (
        apt_model.VisualDistillationPlugin(config) if drawn["visual"] else apt_model.DistillationPlugin(config)
    )
    (plugin.visual_distill_model if drawn["visual"] else plugin.distill_model)(
        student,
        teacher,
        data_of(drawn, tokenizer),
        eval_dataloader=validation_of(drawn, tokenizer),
        tokenizer=tokenizer,
        teacher_tokenizer=theirs,
        num_epochs=drawn["epochs"],
        device="cpu",
        run_dir=run,
        resume_from=run if (run / EVENTS).exists() else None,
        resume_anyway=anyway,
        sinks=list(sinks),
        **more,
    )


def shorter(drawn: Drawn, length: int, unit: str) -> Drawn:
    """The same run with fewer steps or epochs, if that many are fewer."""
    if unit == "epochs":
        return {**drawn, "epochs": min(length, drawn["epochs"])}
    return {**drawn, "max_steps": min(length, drawn["max_steps"] or length)}


def killed(drawn: Drawn, root: Path, run: Path, moment: tuple[Any, ...]) -> int:
    """The run, broken off at a moment; how that ended."""
    place, when, how = moment
    if place == "shorter":
        return forked(lambda: train(shorter(drawn, when, how), root, run))
    if place == "second":
        return forked(lambda: train(drawn, root, run), kill_after=when)
    if place == "step" and drawn["front"] == "python":
        return forked(lambda: train(drawn, root, run, [Killer(when, signal.Signals[how])]))
    seen: list[str] = []

    def act() -> None:
        seen.append(place)
        if len(seen) == when and how.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[how])
        elif len(seen) == when:
            number = {"ENOSPC": 28, "EIO": 5}[how]
            raise OSError(number, os.strerror(number))

    def armed() -> None:
        faults.arm(f"checkpoint.{'begin' if place == 'step' else place}", act)
        train(drawn, root, run)

    return forked(armed)


BEGUN_ANEW = ("notice.checkpoint_skipped", "notice.record_kept")  # told where a run begins anew


def left_by(run: Path) -> dict[str, Any]:
    """What a run leaves, without what a clock says: student, record, last checkpoint."""
    newest, _ = newest_snapshot(run / "checkpoints")
    assert newest is not None
    state = json.loads((newest / "state.json").read_bytes())
    lines = [json.loads(line) for line in (run / EVENTS).read_bytes().splitlines()]
    lines = [line for line in lines if line.get("key") not in BEGUN_ANEW]
    control = run / "control.json"
    return {
        "student": {path.name: path.read_bytes() for path in (run / "student").glob("*.safetensors")},
        "control": json.loads(control.read_bytes()) if control.exists() else None,
        "record": [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines],
        "checkpoint": {path.name: path.read_bytes() for path in newest.glob("*.safetensors")},
        "state": {key: state[key] for key in ("ranks", "optimizer", "best", "identity")},
    }


def ends(drawn: Drawn, kills: list[Any], root: Path, whole: dict[str, Any], count: Counter[str]) -> list[str]:
    """What differs from the run that nobody killed, after a run was killed and resumed to its end."""
    run = root / "broken"
    shutil.rmtree(run, ignore_errors=True)
    if drawn["schedule"] != "constant_with_warmup":  # the rate of the others follows the length
        kills = [moment for moment in kills if moment[0] != "shorter"] or [("step", 2, "SIGKILL")]
    grows = kills[0][0] == "shorter"
    steps = sum(line["kind"] == "step" for line in whole["record"])
    kills = (
        [("shorter", max(1, min(kills[0][1], steps - 1)), kills[0][2])]
        if grows
        else [moment for moment in kills if moment[0] != "shorter"]
    )
    codes = []
    for moment in kills:
        codes.append(killed(drawn, root, run, moment))
        if codes[-1] not in (0, 5, 130, 143, -signal.SIGKILL):
            return [f"a kill ended with {codes[-1]}"]
    count["kills"] += len(codes) - codes.count(0)
    count["resumed"] += any(codes)
    count["made longer"] += grows
    last = forked(lambda: train(drawn, root, run, anyway=grows))
    if last:
        return [f"resumed, it ended with {last} (after {codes})"]
    got = left_by(run)
    names = ("student", "checkpoint") if grows else tuple(whole)  # the record tells of the settings that it began with
    return [f"{name}: {unlike(got[name], whole[name])} (after {codes})" for name in names if got[name] != whole[name]]


def unlike(got: Any, whole: Any) -> str:
    """Where two values first differ, shortly."""
    if isinstance(got, dict) and isinstance(whole, dict) and got.keys() == whole.keys():
        return next(f"{key}.{unlike(got[key], whole[key])}" for key in got if got[key] != whole[key])
    if isinstance(got, list) and isinstance(whole, list):
        at = next((at for at, pair in enumerate(zip(got, whole, strict=False)) if pair[0] != pair[1]), None)
        if at is not None:
            return f"{at}.{unlike(got[at], whole[at])}"
        return f"{len(got)} entries, not {len(whole)}: {str((got + whole)[min(len(got), len(whole)) :])[:400]}"
    return f"{str(got)[:300]} is not {str(whole)[:300]}"


def search(root: Path, runs: int, chosen: int) -> dict[str, Any]:
    """Draw configurations, five lists of kills for each; what was counted, and what ended otherwise."""
    count, found, drawn_ones = Counter[str](), list[Any](), list[Drawn]()

    @seed(chosen)
    @settings(
        max_examples=2 * runs,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(DRAWN, st.lists(KILLS, min_size=5, max_size=5))
    def one(drawn: Drawn, many: list[list[Any]]) -> None:
        if count["resumed"] >= runs:
            return
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        code = forked(lambda: train(drawn, root, root / "whole"))
        if code in (2, 3):  # settings that do not go together
            count["refused"] += 1
            return
        drawn_ones.append(drawn)
        if code:
            found.append([drawn, f"nobody killed it, and it ended with {code}"])
            return
        whole = left_by(root / "whole")
        for kills in many:
            wrong = ends(drawn, kills, root, whole, count)
            if wrong:
                found.append([drawn, kills, wrong])
                print(found[-1], file=sys.stderr, flush=True)

    one()
    return {**count, "configurations": len(drawn_ones), "lost": found, "drawn": drawn_ones}


def main() -> None:
    """Search, and print what was found."""
    root, runs = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    disable_progress_bar()
    datasets.disable_progress_bars()
    with contextlib.redirect_stdout(io.StringIO()):
        found = search(root / "runs", runs, int(sys.argv[3]) if len(sys.argv) > 3 else 18)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
