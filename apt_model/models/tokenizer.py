"""Load a tokenizer that is not trusted: tried on a short text, and refused with the file that is at fault.

Knows transformers' tokenizers and the files that they are made of; knows nothing of models but their vocabulary's size.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from apt_model.data.template_run import file_of, refuse_broken_template
from apt_model.errors import ConfigError, DataError, ModelError, brief
from apt_model.models.directory import CONFIG, TOKENIZER, TOKENIZER_CONFIG, check_directory, damaged, read_object
from apt_model.models.reading import reading
from apt_model.models.text_growth import refuse_growth

SAMPLE = "The river runs to the sea. 人工智能"
FEW = 16  # of its own tokens, where it writes nothing for that
FAR = 2  # times the vocabulary: added tokens may lie behind it, and models have fewer rows than that for them
ADDED: Mapping[str, Callable[[Any], Iterable[Any]]] = {  # files that name added tokens, and the ids that stand in them
    TOKENIZER: lambda file: [token["id"] for token in file.get("added_tokens") or ()],
    TOKENIZER_CONFIG: lambda file: file.get("added_tokens_decoder") or (),
    "added_tokens.json": lambda file: file.values(),
}
MOST_TOKENS = 4  # for each byte of it: one does, and a few stand around them


def load_tokenizer(name: str | Path, path: Path) -> Any:
    """The tokenizer in a directory or of a hub id, or None if there is none.

    Raises:
        ModelError: names the file at fault.
    """
    if path.exists():
        check_directory(path)
    with reading(name, partial(tokenizer_file, str(path), {})):
        tokenizer = made_tokenizer(str(path))
    refuse_unfit_tokenizer(name, path, tokenizer, vocabulary=None)
    return tokenizer


def refuse_unfit_tokenizer(name: str | Path, path: Path, tokenizer: Any, *, vocabulary: int | None) -> None:
    """Refuse a tokenizer that its model cannot read, or whose chat template does not end.

    Args:
        name: of the model, for the message.
        path: its directory, if there is one.
        tokenizer: None is never refused.
        vocabulary: of the model; None if it is not known.

    Raises:
        ModelError: names the file at fault.
    """
    if tokenizer is None:
        return
    _refuse_far_ids(name, path, FAR * max(vocabulary or 0, len(tokenizer)))
    ends = [one for one in (tokenizer.bos_token_id, tokenizer.eos_token_id) if one is not None]
    for file, ids in ((TOKENIZER, tokenizer(SAMPLE, verbose=False)["input_ids"]), (TOKENIZER_CONFIG, ends)):
        if vocabulary is not None and max(ids, default=0) >= vocabulary:
            raise damaged(str(name), file, f"token id {max(ids)}", f"below {vocabulary}, the model's vocabulary")
    try:
        refuse_broken_template(tokenizer)
    except DataError as error:
        expected = "a jinja template that ends"
        raise damaged(str(name), file_of(tokenizer), str(error.got), expected) from error


def _refuse_far_ids(name: str | Path, path: Path, end: int) -> None:
    """Refuse added tokens with ids that no vocabulary of such a size has; transformers gives them others unasked.

    Raises:
        ModelError: names the file.
    """
    for file, ids_of in ADDED.items():
        if (path / file).is_file():
            with reading(name, file):
                far = [one for one in map(int, ids_of(read_object(path / file, str(name)))) if not 0 <= one < end]
            if far:
                raise damaged(str(name), file, f"an added token with id {brief(far[0])}", f"0 to {end - 1}")


def made_tokenizer(source: str, **how: Any) -> Any:
    """The tokenizer saved beside a model, tried out; None for a local directory without any tokenizer file."""
    path = Path(source)
    if "gguf_file" not in how and path.is_dir() and not any(path.glob("*token*")) and not any(path.glob("vocab*")):
        return None
    tokenizer: Any = AutoTokenizer.from_pretrained(source, **how)
    refuse_growth(getattr(tokenizer, "backend_tokenizer", None))
    ids = tokenizer(SAMPLE, verbose=False)["input_ids"]
    tokenizer.decode(ids, skip_special_tokens=True)
    if len(ids) > MOST_TOKENS * len(SAMPLE.encode()) or not (ids or _writes_its_own(tokenizer)):
        raise ValueError(f"it writes {len(ids)} tokens for {len(SAMPLE)} letters")
    if any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in (*ids, len(tokenizer))):
        raise ValueError(f"token ids {ids[:5]}")
    _ = tokenizer.all_special_ids, tokenizer.added_tokens_decoder, tokenizer.pad_token_id
    return tokenizer


def _writes_its_own(tokenizer: Any) -> bool:
    """Whether a tokenizer writes any of a few of its own tokens: one of digits, moves or notes writes no sentence."""
    own = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.added_tokens_decoder))[:FEW]
    return any(tokenizer(tokenizer.decode([one]), verbose=False)["input_ids"] for one in own)


def tokenizer_file(source: str, how: dict[str, Any]) -> str:
    """The file at fault where a tokenizer could not be made: the one that fails alone, or without which it works."""
    path = Path(source)
    if not path.is_dir() or "gguf_file" in how:
        return str(how.get("gguf_file", "the tokenizer"))
    if (path / TOKENIZER).is_file():
        try:
            with reading(source, TOKENIZER):
                core: Any = Tokenizer.from_file(str(path / TOKENIZER))
                refuse_growth(core)
                core.decode(core.encode(SAMPLE).ids)
        except ModelError:
            return TOKENIZER
    others = (TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", CONFIG)
    return next((name for name in others if _works_without(path, name, how)), TOKENIZER)


def _works_without(path: Path, name: str, how: dict[str, Any]) -> bool:
    """Whether the tokenizer in a directory can be made once this file is away."""
    if not (path / name).is_file():
        return False
    with TemporaryDirectory() as folder:
        for file in path.iterdir():
            if file.is_file() and file.name != name and file.suffix != ".safetensors":
                shutil.copy(file, folder)
        try:
            with reading(path, name):
                made_tokenizer(folder, **how)
        except (ModelError, ConfigError):
            return False
    return True
