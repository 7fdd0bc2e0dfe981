"""What other trainers do under a fault: each case really run, alone in a process, by `benchmarks.faults`.

    python -m benchmarks.faults.peers CASE DIRECTORY     # prints one JSON line: what happened, in words

HF Trainer, TRL's GKD, accelerate and rich, as they are installed. Knows nothing of apt_model.
"""

import io
import json
import math
import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

ROWS = [{"input_ids": [5, i, 7, 8], "labels": [5, i, 7, 8]} for i in range(4, 20)]
SEEN = "seen.json"


class Hook(TrainerCallback):
    """Does something once a step has been taken."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.step, self.action = step, action

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The hook of the trainer."""
        if state.global_step == self.step:
            self.action()


class Stop(TrainerCallback):
    """Ends a training after step 4, as its schedule for eight steps has it there."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The hook of the trainer."""
        if state.global_step == 4:
            control.should_training_stop = True


class Toy(LlamaForCausalLM):
    """Its loss is NaN from a call on."""

    nan_from = 10**9
    calls = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As it is, with the loss spoiled."""
        output = super().forward(*args, **kwargs)
        self.calls += 1
        if self.calls >= self.nan_from and output.loss is not None:
            output.loss = output.loss * float("nan")
        return output


def toy(hidden: int = 16) -> Toy:
    """The same weights each time."""
    torch.manual_seed(hidden)
    sizes = {"hidden_size": hidden, "intermediate_size": hidden, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Toy(LlamaConfig(vocab_size=64, **sizes))


def trainer(out: Path, *callbacks: TrainerCallback, rows: Any = ROWS, model: Any = None, **more: Any) -> Trainer:
    """HF's, on the CPU, eight steps, a checkpoint after every second."""
    how = {"per_device_train_batch_size": 2, "max_steps": 8, "save_steps": 2, "logging_steps": 1, "use_cpu": True}
    how |= {"report_to": [], "disable_tqdm": True, "seed": 0, "learning_rate": 0.01, "remove_unused_columns": False}
    arguments = TrainingArguments(str(out / "out"), **how | more)
    return Trainer(model or toy(), arguments, train_dataset=rows, callbacks=list(callbacks))


def losses(one: Trainer) -> list[float]:
    """What was logged."""
    return [entry["loss"] for entry in one.state.log_history if "loss" in entry]


def finite(model: Any) -> bool:
    """Whether every weight is."""
    return all(bool(torch.isfinite(p).all()) for p in model.parameters())


def same(one: Any, other: Any) -> bool:
    """Whether two models have equal weights."""
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def attempt(action: Callable[[], Any]) -> str:
    """How it ended: "goes on, exit 0", or what it raised."""
    try:
        action()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the result
        return f"{type(error).__name__}: {' '.join(str(error).split())[:90] or 'no message'}"
    return "no error, exit 0"


def forked(action: Callable[[], object]) -> int:
    """Its exit code, or minus the signal's number."""
    child = os.fork()
    if not child:
        code = 1
        try:
            action()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except KeyboardInterrupt:
            code = 130
        except BaseException as error:  # noqa: BLE001 - told by the exit code
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def resumed(out: Path, **more: Any) -> tuple[str, Trainer]:
    """Go on from the newest checkpoint."""
    one = trainer(out, **more)
    return attempt(lambda: one.train(resume_from_checkpoint=True)), one


def checkpoints(out: Path) -> list[str]:
    """What lies there."""
    return sorted(path.name for path in (out / "out").glob("*checkpoint*"))


def nan_loss(out: Path) -> str:
    """10."""
    model = toy()
    model.nan_from = 3
    one = trainer(out, model=model)
    ended = attempt(one.train)
    return f"{ended}; logged losses from the third on {losses(one)[2:5]}; weights finite: {finite(model)}"


def spoiled(out: Path, spoil: Callable[[Path], None]) -> str:
    """A run to step 4, its checkpoint spoiled, then gone on with to 8."""
    whole = trainer(out / "whole")
    whole.train()
    trainer(out, Stop()).train()
    spoil(out / "out" / "checkpoint-4")
    ended, one = resumed(out)
    return f"{ended}; final weights those of the run never broken off: {same(one.model, whole.model)}"


def untouched(out: Path) -> str:
    """2: nothing spoiled, to have something to compare with."""
    return spoiled(out, lambda _: None)


def truncated(out: Path) -> str:
    """7."""

    def cut(path: Path) -> None:
        file = path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])

    return spoiled(out, cut)


def flipped(out: Path) -> str:
    """7."""

    def flip(path: Path) -> None:
        content = bytearray((path / "model.safetensors").read_bytes())
        content[-3] ^= 64
        (path / "model.safetensors").write_bytes(content)

    return spoiled(out, flip)


def no_optimizer(out: Path) -> str:
    """8."""
    return spoiled(out, lambda path: [file.unlink() for file in (*path.glob("optimizer*"), *path.glob("rng_state*"))])


def absurd_step(out: Path) -> str:
    """30."""

    def write(path: Path) -> None:
        state = json.loads((path / "trainer_state.json").read_text())
        state["global_step"] = 10**15
        (path / "trainer_state.json").write_text(json.dumps(state))

    return spoiled(out, write)


def other_batch_size(out: Path) -> str:
    """29."""
    trainer(out, Stop()).train()
    return resumed(out, per_device_train_batch_size=4)[0]


def killed_in_save(out: Path) -> str:
    """4: after the weights, before the rest, in the second save."""

    def run() -> None:
        one, saves = trainer(out), []
        inner = one._save_optimizer_and_scheduler

        def save(place: str) -> None:
            saves.append(place)
            if len(saves) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            inner(place)

        one._save_optimizer_and_scheduler = save
        one.train()

    ended = forked(run)
    return f"killed ({ended}), left {checkpoints(out)}; resumed: {resumed(out)[0]}"


def disk_full(out: Path) -> str:
    """5: no file beyond 20 kB from step 3 on."""

    def run() -> None:
        limit = Hook(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)))
        said = attempt(trainer(out, limit).train)
        os.write(1, b"")
        (out / "said").write_text(said[:150])
        sys.exit(0 if said.startswith("no error") else 1)

    ended = forked(run)
    return f"exit {ended}: {(out / 'said').read_text()}; left {checkpoints(out)}; resumed: {resumed(out)[0]}"


def by_signal(out: Path, number: int) -> str:
    """Sent after step 3; checkpoints are due at even steps."""
    ended = forked(lambda: trainer(out, Hook(3, lambda: os.kill(os.getpid(), number))).train())
    return f"ended with {ended}; checkpoints {checkpoints(out)}, none of step 3"


def sigterm(out: Path) -> str:
    """23."""
    return by_signal(out, signal.SIGTERM)


def sigint(out: Path) -> str:
    """24."""
    return by_signal(out, signal.SIGINT)


def all_ignored(out: Path) -> str:
    """15."""
    one = trainer(out, rows=[{**row, "labels": [-100] * 4} for row in ROWS])
    ended = attempt(one.train)
    return f"{ended}; logged losses {losses(one)[:2]}; weights finite: {finite(one.model)}"


def empty_data(out: Path) -> str:
    """35."""
    return attempt(lambda: trainer(out, rows=[]).train())


def no_epochs(out: Path) -> str:
    """38."""
    found = []
    for more in ({"max_steps": 0, "num_train_epochs": 3}, {"max_steps": -1, "num_train_epochs": 0}):
        one = trainer(out, **more)
        ended = attempt(one.train)
        found.append(f"{more}: {ended}, {one.state.global_step} steps")
    return "; ".join(found)


def two_writers(out: Path) -> str:
    """28: a second trainer begins in the same directory while the first is at step 3."""
    seen: list[str] = []
    trainer(out, Hook(3, lambda: seen.append(attempt(trainer(out).train)))).train()
    return f"the second: {seen[0]}"


def gkd(out: Path, rows: int = 4, **more: Any) -> Any:
    """TRL's GKD trainer on a toy."""
    import datasets
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    words = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", "a", "b", "user", "assistant"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' </s> ' }}{% endfor %}"
    chat = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "b a b"}]
    data = (
        datasets.Dataset.from_dict({"messages": [chat] * rows})
        if rows
        else datasets.Dataset.from_dict({"messages": []})
    )
    how = {"per_device_train_batch_size": 2, "max_steps": 3, "logging_steps": 1, "use_cpu": True, "report_to": []}
    how |= {"disable_tqdm": True, "bf16": False, "lmbda": 0.0, "max_length": 16, "save_strategy": "no"}
    teacher = more.pop("teacher", None) or toy(32)
    arguments = GKDConfig(str(out / "out"), **how | more)
    return GKDTrainer(toy(), teacher, arguments, train_dataset=data, processing_class=tokenizer)


def gkd_settings(out: Path) -> str:
    """12 and 14."""
    from trl.experimental.gkd import GKDConfig

    tried = [("temperature", value) for value in (0, -1.0, math.nan, math.inf, "hot", True)]
    tried += [("beta", math.nan), ("lmbda", math.nan), ("beta", 7.0)]
    taken = [
        f"{key}={value}"
        for key, value in tried
        if attempt(
            lambda key=key, value=value: GKDConfig(str(out), use_cpu=True, bf16=False, **{key: value})
        ).startswith("no error")  # type: ignore[misc]
    ]
    return f"taken without a word: {', '.join(taken) or 'none'} (of {len(tried)})"


def gkd_teacher_nan(out: Path) -> str:
    """11."""
    teacher = toy(32)
    teacher.lm_head.weight.data[:] = float("nan")
    one = gkd(out, teacher=teacher)
    ended = attempt(one.train)
    return f"{ended}; logged losses {losses(one)}; weights finite: {finite(one.model)}"


def gkd_empty(out: Path) -> str:
    """35."""
    return attempt(lambda: gkd(out, rows=0).train())


class Code:
    """Unpickled, it writes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


def accelerate_pickle(out: Path) -> str:
    """9: a state directory whose pickle has code in it."""
    from accelerate import Accelerator

    one = Accelerator(cpu=True)
    one.prepare(toy())
    one.save_state(str(out / "state"))
    (out / "state" / "random_states_0.pkl").write_bytes(pickle.dumps(Code(str(out / "executed"))))
    ended = attempt(lambda: one.load_state(str(out / "state")))
    return f"{ended}; code in the checkpoint was executed: {(out / 'executed').exists()}"


def accelerate_no_generators(out: Path) -> str:
    """8: the file of the generators taken away."""
    from accelerate import Accelerator

    one = Accelerator(cpu=True)
    one.prepare(toy())
    one.save_state(str(out / "state"))
    (out / "state" / "random_states_0.pkl").unlink()
    return attempt(lambda: one.load_state(str(out / "state")))


def rich_escapes(out: Path) -> str:
    """16 and 49."""
    from rich.console import Console

    file = io.StringIO()
    console = Console(file=file, force_terminal=True, highlight=False)
    raw = [name for name, code in {"CSI": "\x1b[2J", "OSC 52": "\x1b]52;c;aGk=\x07"}.items() if _passes(console, code)]
    return f"passed raw: {raw}; printing '[/]': {attempt(lambda: console.print('[/]'))}"


def _passes(console: Any, code: str) -> bool:
    console.print(f"a{code}b")
    return code.rstrip("\x07") in console.file.getvalue()


def rich_long_line(out: Path) -> str:
    """52."""
    from rich.console import Console

    started = time.perf_counter()
    Console(file=io.StringIO(), width=80).print("互a" * 2_500_000)
    return f"{time.perf_counter() - started:.1f} s for a line of 10 MB"


CASES: dict[str, tuple[int, str, Callable[[Path], str]]] = {
    "untouched": (2, "HF Trainer, resumed from whole checkpoint", untouched),
    "killed_in_save": (4, "HF Trainer", killed_in_save),
    "disk_full": (5, "HF Trainer, EFBIG", disk_full),
    "truncated": (7, "HF Trainer, truncated", truncated),
    "flipped": (7, "HF Trainer, one bit", flipped),
    "no_optimizer": (8, "HF Trainer, optimizer and generators gone", no_optimizer),
    "accelerate_no_generators": (8, "accelerate, generators gone", accelerate_no_generators),
    "accelerate_pickle": (9, "accelerate", accelerate_pickle),
    "nan_loss": (10, "HF Trainer", nan_loss),
    "gkd_teacher_nan": (11, "TRL GKD", gkd_teacher_nan),
    "gkd_settings": (12, "TRL GKD", gkd_settings),
    "all_ignored": (15, "HF Trainer", all_ignored),
    "rich_escapes": (16, "rich", rich_escapes),
    "sigterm": (23, "HF Trainer", sigterm),
    "sigint": (24, "HF Trainer", sigint),
    "two_writers": (28, "HF Trainer", two_writers),
    "other_batch_size": (29, "HF Trainer", other_batch_size),
    "absurd_step": (30, "HF Trainer", absurd_step),
    "empty_data": (35, "HF Trainer", empty_data),
    "gkd_empty": (35, "TRL GKD", gkd_empty),
    "no_epochs": (38, "HF Trainer", no_epochs),
    "rich_long_line": (52, "rich", rich_long_line),
}


def main() -> None:
    """Run one case."""
    torch.set_num_threads(1)
    _, _, case = CASES[sys.argv[1]]
    found = case(Path(sys.argv[2]))
    print(json.dumps({"found": found}))


if __name__ == "__main__":
    main()
