"""Benchmark of one card: CPU time to read, compare, score, draw and record a sample, and its memory.

    python -m benchmarks.micro.costs               # about two minutes

The guide allows 10 to 50 ms for a sample's text, 5 to 10 ms for its similarity, 1 to 2 MB for keeping it. Measured
here, one thread, medians of CPU time over rounds: reading a row out of the logits of teacher and student (tokens, KL,
agreement, entropies) and decoding its five texts and each token, with real tokenizers (the demo's, and byte-level BPEs
trained on the spot on Python's own library); what both models' continuations add; difflib's ratio; scoring; drawing;
writing the record. Then memory: what 10,000 cards leave behind, and what one takes while it is made. Prints Markdown
tables.
"""

import argparse
import gc
import io
import random
import statistics
import sysconfig
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from apt_model.config.sections import DisplayConfig
from apt_model.data.batch import to_batch
from apt_model.demo.lesson import load_teacher, read_corpus
from apt_model.distill.continuations import Continuations
from apt_model.distill.losses.readout import choose_row
from apt_model.distill.losses.teacher_logits import DenseLogits
from apt_model.distill.reporter import Reporter
from apt_model.events.cards import Observation, ScoredObservation
from apt_model.events.runfile import RunFile
from apt_model.events.sinks import Audience
from apt_model.events.tokens import TokenDetail
from apt_model.render.terminal import TerminalSink
from apt_model.teaching.scorer import LessonScorer
from apt_model.teaching.similarity import text_similarity
from apt_model.teaching.topics import default_topics
from benchmarks.machine import heading, peak_mib, resident_mib
from benchmarks.markdown import MISSING, head, row
from benchmarks.sizes import SIZES, make_pair

TEXT_MS, SIMILARITY_MS, SAMPLE_MB = (10.0, 50.0), (5.0, 10.0), (1.0, 2.0)  # the guide's
TOKENS = (64, 128)  # a usual card, and the longest
CHARACTERS = (100, 200, 1_000)
VOCABULARIES = (8_000, 50_000)
NEW_TOKENS = 32  # of a continuation
CARDS = 10_000


def corpus() -> str:
    """The demo's sentences in an order that mixes topics, as one text."""
    topics = list(read_corpus().values())
    return "".join(sentence for sentences in zip(*topics, strict=False) for sentence in sentences)


def tokenizers() -> Iterator[tuple[str, Any, str]]:
    """Name, tokenizer, and a text that it knows."""
    yield "demo", load_teacher()[1], corpus()
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
    sources = [path for path in sources if "site-packages" not in path.parts]
    text = "\n".join(path.read_text("utf-8", "replace") for path in sources)
    for size in VOCABULARIES:
        made = ByteLevelBPETokenizer()
        made.train_from_iterator((text[i : i + 10_000] for i in range(0, len(text), 10_000)), size, 2, False)
        yield "BPE", PreTrainedTokenizerFast(tokenizer_object=made), text[: 40 * max(TOKENS)]


def milliseconds(action: Callable[[], object], rounds: int) -> float:
    """Median CPU time of one call, each round as many calls as take some milliseconds."""
    started = time.process_time()
    action()
    calls = max(1, round(0.01 / max(time.process_time() - started, 1e-6)))
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(calls):
            action()
        taken.append((time.process_time() - started) / calls)
    return 1_000 * statistics.median(taken)


def reading(tokenizer: Any, text: str, tokens: int) -> Callable[[], None]:
    """What the loop does for a card: five texts and their tokens out of the logits of a batch of two rows."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][: tokens + 1]
    teacher, student = (2 * torch.randn(2, tokens + 1, len(tokenizer)) for _ in range(2))
    teacher[1, torch.arange(tokens), ids[1:]] += 20  # so that the texts are as long and as real as on a card
    student[1, torch.arange(tokens), ids[1:]] += 15 * (torch.rand(tokens) < 0.8)
    batch = to_batch(torch.tensor([ids, ids]))
    card = choose_row(batch, turn=1, given_tokens=5)
    assert card is not None
    report = Reporter(Audience([]), tokenizer=tokenizer, device=torch.device("cpu"), speaks=True)

    def read() -> None:
        report.observe(DenseLogits(teacher).read(card, student, batch), batch=0, epoch=1, loss=1.5)

    return read


def continuing(size: str) -> Callable[[], None]:
    """What a continued card adds: both models of a size go on with a row by themselves."""
    shape, pair = SIZES[size], make_pair(SIZES[size], dtype=torch.float32)
    card = choose_row(to_batch(torch.randint(3, shape.vocabulary, (1, shape.length))), turn=0, given_tokens=4)
    assert card is not None
    speaking = Continuations(teacher=pair.teacher, tokenizer=None, accelerator=Accelerator(cpu=True))

    def go_on() -> None:
        speaking.of_cards(pair.student, [card], most=NEW_TOKENS)

    return go_on


def two_texts(text: str, characters: int) -> tuple[str, str]:
    """A teacher's text, and a student's that departs from it in a fifth of its characters."""
    chance = random.Random(0)
    teacher = text[:characters]
    return teacher, "".join(chance.choice(text) if chance.random() < 0.2 else c for c in teacher)


def similarities() -> Iterator[tuple[str, tuple[str, str]]]:
    """Name, and two texts to compare; the last are difflib's worst: a fresh student that repeats one short word."""
    english = " ".join((Path(__file__).parents[2] / "docs" / "handbook.en.md").read_text("utf-8").split())
    for language, text in (("Chinese", corpus()), ("English", english)):
        for characters in CHARACTERS:
            yield f"{characters:,} characters, {language}", two_texts(text, characters)
    yield "1,000 characters, English against “a a a …”", (english[:1_000], "a " * 500)


def observation(texts: tuple[str, str], step: int = 0) -> Observation:
    """What the loop tells of one sample; no two steps have the same text."""
    teacher, student = texts
    turn = step % len(teacher)
    return Observation(
        run_id="costs",
        step=step,
        epoch=1,
        batch=step,
        loss=1.5,
        given="人工智能",
        teacher_text=teacher[turn:] + teacher[:turn],
        student_text=student[turn:] + student[:turn],
        input_text=f"{step} {teacher}",
        normalised_kl=0.3,
        agreement=0.8,
        tokens=len(teacher),
        detail=detail_of(*texts),
    )


@cache
def detail_of(teacher: str, student: str) -> TokenDetail:
    """As if every character were a token, up to the longest card."""
    one, other = teacher[: max(TOKENS)], student[: max(TOKENS)]
    numbers = tuple(round(random.random(), 4) for _ in one)
    tops = tuple(tuple(zip(random.choices(teacher, k=5), random.choices(numbers, k=5), strict=True)) for _ in one)
    return TokenDetail(
        teacher=tuple(one),
        student=tuple(other),
        kl_nats=numbers,
        teacher_top=tops,
        student_top=tops,
        teacher_entropy=numbers,
        student_entropy=numbers,
    )


@contextmanager
def stages(directory: Path) -> Iterator[dict[str, Callable[[Observation], object]]]:
    """Everything that happens to an observation, by name, in order."""
    scorer = LessonScorer(DisplayConfig(), default_topics())
    terminal = TerminalSink(DisplayConfig(), file=_Nowhere())
    record = RunFile(directory / "run")
    scored: list[ScoredObservation] = []

    def score(seen: Observation) -> None:
        card = scorer(seen)
        assert isinstance(card, ScoredObservation)
        scored[:] = [card]

    def emit(sink: Any) -> Callable[[Observation], object]:
        return lambda seen: sink.emit(replace(scored[0], step=seen.step))

    yield {"scoring (similarity, topic, remark)": score, "drawing": emit(terminal), "the record": emit(record)}
    record.close()


class _Nowhere(io.StringIO):
    """A terminal's file that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


def kept(cards: int, steps: Sequence[Callable[[Observation], object]]) -> tuple[float, float]:
    """Growth over `cards` cards after a warm-up of a tenth: bytes a card that Python holds, MB of the process."""
    texts = two_texts(corpus(), 100)

    def show(first: int, last: int) -> None:
        for step in range(first, last):
            seen = observation(texts, step)
            for stage in steps:
                stage(seen)

    show(0, cards // 10)
    gc.collect()
    before = resident_mib()
    show(cards // 10, cards)
    grown = resident_mib() - before
    tracemalloc.start()
    try:
        show(cards, cards + cards // 10)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        show(cards + cards // 10, 2 * cards)
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - held) / (cards - cards // 10), grown
    finally:
        tracemalloc.stop()


def compared(name: str, promise: tuple[float, float], unit: str, ours: float) -> str:
    """A line of the table: the promise, ours, and how many times better that is."""
    low, high = promise
    ratio = f"{low / ours:,.1f} to {high / ours:,.1f}" if ours > 0 else MISSING
    return row([name, f"{low:g} to {high:g} {unit}", f"{ours:.3g} {unit}", ratio])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cards", type=int, default=CARDS, help="cards made to see what they leave behind")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    print(f"{heading()}, medians of CPU time over {arguments.rounds} rounds\n")
    print(head(["a sample", "the guide's promise", "ours", "times better"]))
    peaks = []
    for kind, tokenizer, text in tokenizers():
        for tokens in TOKENS:
            name = f"{tokens} tokens, {kind} vocabulary of {len(tokenizer):,}"
            read = reading(tokenizer, text, tokens)
            print(compared(f"text: {name}", TEXT_MS, "ms", milliseconds(read, arguments.rounds)), flush=True)
            peaks.append(compared(f"made: {name}", SAMPLE_MB, "MB", peak_mib(read)))
    for size in ("demo", "S"):
        taken = milliseconds(continuing(size), arguments.rounds)
        name = f"continued: {NEW_TOKENS} tokens of both models, size {size}"
        print(compared(name, TEXT_MS, "ms", taken), flush=True)
    for name, texts in similarities():
        taken = milliseconds(partial(text_similarity, *texts), arguments.rounds)
        print(compared(f"similarity: {name}", SIMILARITY_MS, "ms", taken), flush=True)
    with tempfile.TemporaryDirectory() as directory, stages(Path(directory)) as every:
        seen = observation(two_texts(corpus(), 100))
        for name, stage in every.items():
            taken = milliseconds(partial(stage, seen), arguments.rounds)
            print(row([f"{name}, 100 characters", MISSING, f"{taken:.3g} ms", MISSING]))
    with tempfile.TemporaryDirectory() as directory, stages(Path(directory)) as every:
        held, grown = kept(arguments.cards, list(every.values()))
    print("\n".join(peaks))
    print(compared(f"kept: after {arguments.cards:,} cards, process", SAMPLE_MB, "MB", grown / arguments.cards))
    print(row(["kept: the same by Python's own count", MISSING, f"{held:.1f} bytes", MISSING]))


if __name__ == "__main__":
    main()
