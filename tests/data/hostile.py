"""A seeded grammar of hostile files: bytes, JSON tokens, structure, encodings, compressions, tables, folders."""

import bz2
import gzip
import json
import lzma
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.feather as pf
import pyarrow.parquet as pq

DEPTHS = (2, 3, 50, 97, 98, 99, 100, 101, 500, 900, 990, 3_000, 300_000)
COLUMNS = ("text", "messages", "conversations", "prompt", "completion", "input_ids", "labels", "tools", "meta", "", "a")
TOKENS = (
    *"{}[]:,", '"text"', '"messages"', '"role"', '"content"', '"user"', '"assistant"', '"input_ids"', '"tools"', '""',
    "null", "true", "NaN", "-Infinity", "1", "-0", "1e999", "1e-999", "9" * 5_000, '"\\ud83d"', '"\\u0000"', '"\\x"',
    "\\", "\0", "\ufeff", "\n", "\r", "\t", " ", "\u2028", "'", "//", '{"text": "a"}', '"[[1]]"', '"[{}]"', "0x1",
)  # fmt: skip
VALUES = (
    "4.0", "1", "[1]", "{}", "*a", "&a [*a]", "&a {b: *a}", "!!bool 5", "!!int [1]", "!!timestamp x", "!word [a]",
    "!!map [a]", "!!float {}", "yes", "1979-99-99", "'", '"\\ud800"', "\t", "!!python/object:os.system x", "0x",
    "9" * 5_000, "1e999",
)  # fmt: skip
NAMES = (
    "a", "train", "test", "validation", "data-00000-of-00002", ".hidden", "__x__", "README", "LICENSE", "CON", "a b",
    "n\nl", "g[0-9]*?", "C:\\x", "-x", "~", "e\u0301", "\udcd6\udcd0", "\x1b[31m", "\u202e", "x" * 200, "%s{}", "a,b=c",
)  # fmt: skip


class Hostile:
    """Draws files; the same seed draws the same."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)

    def pick(self, *makers: Callable[[], Any]) -> Any:
        return self.draw.choice(makers)()

    def text(self) -> str:
        return "".join(self.draw.choice('abc é中\t\\"{}[]<>%\u0301\u200b') for _ in range(self.draw.randrange(12)))

    def deep(self) -> str:
        depth, (start, middle, stop) = (
            self.draw.choice(DEPTHS),
            self.draw.choice(
                [("[", "", "]"), ('{"a":', "1", "}"), ('[{"a":', "[]", "}]"), ("[\n", "", "]\n"), ("[", "", "")]
            ),
        )
        depth = (
            min(depth, 3_000) if "\n" in start else depth
        )  # where each line is a row, they are no more than can be read
        return start * depth + middle + stop * depth

    def value(self, depth: int = 0) -> Any:
        inner = depth < 3
        return self.pick(
            lambda: None,
            lambda: self.draw.random() < 0.5,
            lambda: self.draw.choice([0, 1, -1, 2**63, 2**70, 0.5, float("nan"), float("inf")]),
            self.text,
            lambda: self.deep()[: self.draw.randrange(1, 3_000)],
            lambda: [self.value(depth + 1) for _ in range(self.draw.randrange(4))] if inner else [],
            lambda: self.row(depth + 1) if inner else {},
            lambda: json.dumps(self.value(depth + 1)) if inner else "[]",
        )

    def row(self, depth: int = 0) -> dict[str, Any]:
        return {self.draw.choice(COLUMNS): self.value(depth) for _ in range(self.draw.randrange(5))}

    def chat(self) -> dict[str, Any]:
        """A chat, some part of which is drawn, as text of JSON here and there."""
        turn = {"role": self.pick(lambda: "user", self.text), "content": self.pick(self.text, self.value)}
        call = {"function": {"name": self.pick(lambda: "f", self.value), "arguments": self.pick(self.deep, self.value)}}
        said = {
            "role": "assistant",
            "content": None,
            "tool_calls": self.pick(lambda: [call], lambda: [call], self.value),
        }
        turns: Any = [turn, self.pick(lambda: said, lambda: {"role": "assistant", "content": self.text()})]
        row = {"messages": turns, "tools": self.pick(lambda: [self.row()], self.deep, self.value)}
        return {key: json.dumps(one) if self.draw.random() < 0.3 else one for key, one in row.items()}

    def lines(self) -> str:
        def line() -> str:
            return str(
                self.pick(
                    *[lambda: json.dumps({"text": self.text()})] * 4,
                    lambda: json.dumps({"text": self.text(), **self.row()}),
                    lambda: json.dumps(self.row()),
                    *[lambda: json.dumps(self.chat())] * 2,
                    lambda: f'{{"text": "b", "{self.draw.choice(COLUMNS)}": {self.deep()}}}',
                    lambda: f'{{"text": {self.deep()}}}',
                    lambda: "".join(self.draw.choices(TOKENS, k=self.draw.randrange(12))),
                )
            )

        many = [line() for _ in range(self.draw.randrange(1, 4))]
        return self.pick(
            lambda: "\n".join(many), lambda: f"[{','.join(many)}]", lambda: f'{{"rows": [{", ".join(many)}]}}'
        )

    def cells(self) -> str:
        quoted, name = lambda: f'"{self.text()}"', lambda: self.draw.choice(COLUMNS)
        cell = lambda: self.pick(self.text, quoted, name, self.deep)  # noqa: E731
        width = self.draw.randrange(1, 4)
        head = ",".join(["text", *(self.draw.choice(COLUMNS) for _ in range(width - 1))])
        return "\n".join([head, *(",".join(cell() for _ in range(width)) for _ in range(self.draw.randrange(3)))])

    def encoded(self, text: str) -> bytes:
        how = self.draw.choice(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "gb18030", "latin-1"])
        return (
            text.encode(how, "replace" if how == "latin-1" else "surrogatepass")
            if how != "gb18030"
            else text.encode(how, "replace")
        )

    def table(self, ending: str) -> bytes:
        sink = pa.BufferOutputStream()
        try:
            made = pa.table({"text": [self.text()], **{name: [value] for name, value in self.row().items()}})
            if ending == "parquet":
                pq.write_table(made, sink)
            elif ending == "feather":
                pf.write_feather(made, sink)
            else:
                with pa.ipc.new_stream(sink, made.schema) as out:
                    out.write_table(made)
        except (pa.ArrowException, TypeError, ValueError, OverflowError, NotImplementedError, UnicodeError):
            return b""
        return bytes(sink.getvalue())

    def damaged(self, content: bytes) -> bytes:
        """Nothing, a flipped bit, a cut, a splice, zeros, or one part twice; of a table more often near its end."""
        at = self.draw.randrange(len(content) + 1)
        if self.draw.random() < 0.5:
            at = max(0, len(content) - self.draw.randrange(1, 200))
        end = min(len(content), at + self.draw.randrange(9))
        return bytes(
            self.pick(
                lambda: content,
                lambda: (
                    content[:at] + bytes([content[at] ^ 1 << self.draw.randrange(8)]) + content[at + 1 :]
                    if at < len(content)
                    else content
                ),
                lambda: content[:at],
                lambda: content[:at] + self.draw.randbytes(self.draw.randrange(9)) + content[end:],
                lambda: content[:at] + b"\0" * self.draw.choice([1, 4, 4096]) + content[end:],
                lambda: content[:at] + content,
                lambda: content[:at] + b"\xff" * 8 + content[end:],
            )
        )

    def packed(self, content: bytes, how: str) -> bytes:
        right = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}.get(how, bytes)
        return bytes(
            self.pick(*[lambda: right(content)] * 20, lambda: right(right(content)), lambda: right(content) + b"x")
        )

    def content(self, ending: str) -> bytes:
        if ending in ("parquet", "arrow", "feather"):
            return self.pick(*[lambda: self.damaged(self.table(ending))] * 2, lambda: self.table(ending))
        text = self.cells() if ending in ("csv", "tsv") else self.lines()
        if self.draw.random() < 0.6:
            return text.encode("utf-8", "surrogatepass")
        return self.pick(lambda: self.damaged(text.encode("utf-8", "surrogatepass")), lambda: self.encoded(text))

    def file(self, folder: Path, name: str = "a") -> Path:
        """A hostile file in a folder."""
        ending = self.draw.choice(
            ["jsonl"] * 4 + ["json"] * 3 + ["txt", "csv", "tsv", "parquet", "parquet", "arrow", "feather"]
        )
        how = self.draw.choice([""] * 5 + [".gz", ".bz2", ".xz", ".zst"])
        path = folder / f"{name}.{ending}{how}"
        packed = self.packed(self.content(ending), how)
        path.write_bytes(self.damaged(packed) if how and self.draw.random() < 0.4 else packed)
        return path

    def odd(self, at: Path) -> None:
        """Something in a folder that is no data: special, hidden, linked or without a known ending."""
        name = self.draw.choice(NAMES)
        made = at / self.pick(lambda: f"{name}.jsonl", lambda: f".{name}"[:200], lambda: f"{name}.log", lambda: name)
        if os.path.lexists(made) or made.name in ("", ".", ".."):
            return
        self.pick(
            lambda: os.mkfifo(made),
            lambda: made.symlink_to("/dev/zero"),
            lambda: made.symlink_to(at),
            lambda: made.symlink_to(made.name),
            lambda: _socket(made),
            lambda: made.mkdir(),
            lambda: made.write_bytes(self.draw.randbytes(9)),
        )

    def card(self) -> bytes:
        """The head of a data set's card."""
        yaml = self.pick(
            lambda: (
                "configs:\n- config_name: default\n  data_files: "
                + self.pick(self.text, self.deep, lambda: "'*.jsonl'")
            ),
            lambda: "a: &a [*a]\nconfigs: *a",
            lambda: self.deep()[:2_000],
            lambda: "configs:\n" + self.text(),
            lambda: "configs: !!bool 5",
            lambda: "configs:\n- data_files:\n  - split: train\n    path: [" + self.text() + "]",
        )
        return f"---\n{yaml}\n---\n# Data\n".encode("utf-8", "replace")

    def folder(self, at: Path) -> Path:
        """A folder with hostile files, odd entries and perhaps a card."""
        for number in range(self.draw.randrange(3)):
            below = at / self.draw.choice(["", "", "sub", "train", ".git"])
            below.mkdir(exist_ok=True)
            self.file(below, f"{self.draw.choice(NAMES)[:150].strip()}{number}".replace("/", ""))
        if self.draw.random() < 0.4:
            (at / "README.md").write_bytes(self.card())
        for _ in range(self.draw.randrange(4)):
            self.odd(at)
        return at

    def saved(self, at: Path) -> Path:
        """A directory of `save_to_disk`, one of whose files is damaged."""
        datasets.Dataset.from_list([{"text": self.text()} for _ in range(3)]).save_to_disk(at)
        file = self.draw.choice(sorted(path for path in at.iterdir() if path.is_file()))
        content = file.read_bytes()
        tokens = content.replace(
            *self.draw.choice([(b"null", b"1"), (b"string", b"\\ud800"), (b"{", b"["), (b":", b":[")])
        )
        file.write_bytes(self.pick(lambda: self.damaged(content), lambda: tokens, lambda: self.deep().encode()))
        return at

    def any(self, at: Path) -> Path:
        at.mkdir()
        return Path(self.pick(*[lambda: self.file(at)] * 6, lambda: self.folder(at), lambda: self.saved(at / "saved")))

    def settings(self, at: Path) -> Path:
        """A file of settings: right ones, and what is drawn among them."""
        ending, sign = self.draw.choice([(".toml", " = "), (".yaml", ": "), (".json", ": ")])
        right = {
            "temperature": "4.0",
            "max_length": "64",
            "lang": '"zh"',
            "exam_prompts": '["a"]',
            "learning_rate": "1e-4",
        }
        pairs = [(key, right[key]) for key in self.draw.sample(list(right), self.draw.randrange(4))]
        for _ in range(self.draw.randrange(3)):
            value = self.pick(lambda: self.draw.choice(VALUES), self.deep, self.text)
            pairs.append((self.draw.choice([*right, "columns", "lora", "preset", "<<", "a.b", "? [a]"]), value))
        quote = '"' if ending == ".json" else ""
        lines = [f"{quote}{key}{quote}{self.draw.choice([sign] * 20 + [': ', '='])}{value}" for key, value in pairs]
        text = "{" + ",".join(lines) + "}" if ending == ".json" else "\n".join(lines)
        text = self.pick(*[lambda: text] * 12, self.deep, lambda: "a." * 9_999 + "a = 1")
        content = text.encode("utf-8", "replace")
        path = at.with_suffix(ending)
        path.write_bytes(self.damaged(content) if self.draw.random() < 0.3 else content)
        return path


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(content)
    return bytes(sink.getvalue())


def _socket(at: Path) -> None:
    here = Path.cwd()
    try:
        os.chdir(at.parent)  # a socket's path may have 107 bytes
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(at.name)
    except (OSError, UnicodeError):
        at.unlink(missing_ok=True)
    finally:
        os.chdir(here)
