"""Tokenize rows: texts, chats, and prompts with completions become token ids and labels.

Knows tokenizers; knows nothing of batches, models or losses. `columns` says which rows there are, `turns` what a chat
is, `chat` which of its text is learned.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from apt_model.data.answers import refuse_left_out
from apt_model.data.chat import Rendered, bytes_of, render
from apt_model.data.columns import CHAT, SYSTEMS, kind_of
from apt_model.data.encoded import IGNORED, Encoded
from apt_model.data.notices import Tell, untold, warn
from apt_model.data.placing import Placed, pieces_of, place, readable, without_warning
from apt_model.data.structure import RowError
from apt_model.data.template import has_template, render_chat
from apt_model.data.token_rows import row_of_ids
from apt_model.data.turns import ASSISTANT, CALL, Chat, chat_of, needed_text, text_of
from apt_model.errors import ConfigError, DataError

UNLIMITED = 10**9
LETTERS_AT_ONCE = 1_000_000

ONE_TOKENIZER = "use a student with the teacher's tokenizer"
OR_CROSS = f"{ONE_TOKENIZER}, or set cross_tokenizer=kl"


def encode_rows(
    rows: Sequence[Mapping[str, Any]], tokenizer: Any, max_length: int, *, tell: Tell = warn
) -> list[Encoded]:
    """Token ids and labels of each row, truncated to `max_length`.

    Which of a row is learned, by its kind (`columns.KINDS`):
        text: every token.
        messages, or ShareGPT's conversations: a chat, in the tokenizer's own template. All of the assistant's turns,
            tool calls among them, each with its end; the rest is given (label -100).
        prompt, completion: strings, tokenized as one text, whose completion is learned; or lists of turns.
        a question and its answer (`instruction`, `input`, `output` and their relatives): a chat if the tokenizer has a
            template, else prompt and completion, a line each.
        input_ids: as they are, not truncated; see `row_of_ids`.

    Args:
        rows: one dict a row.
        tokenizer: a Hugging Face tokenizer.
        max_length: tokens of a row at most.
        tell: is told of what a row has that is not used.

    Raises:
        RowError: another kind of row, or a chat that the template does not write; has the row.
        DataError: no callable tokenizer.
    """
    try:
        return _encode_rows(rows, tokenizer, max_length, tell)
    except DataError:
        for index, row in enumerate(rows if callable(tokenizer) else ()):
            try:
                _encode_rows([row], tokenizer, max_length, untold)
            except DataError as error:
                raise RowError.of(error, index, row) from error
        raise


def _encode_rows(rows: Sequence[Mapping[str, Any]], tokenizer: Any, max_length: int, tell: Tell) -> list[Encoded]:
    kinds = [kind_of(row.keys()).name for row in rows]
    texts = [text_of(row, "text") for row, kind in zip(rows, kinds, strict=True) if kind == "text"]
    from_texts = iter(encode(texts, tokenizer, max_length) if texts else [])
    return [
        _encode_row(row, kind, from_texts, tokenizer, max_length, tell) for row, kind in zip(rows, kinds, strict=True)
    ]


def encode(texts: Sequence[str], tokenizer: Any, max_length: int, *, end: bool = True) -> list[list[int]]:
    """Token ids of each text: BOS, text, EOS, as far as the tokenizer has them; truncated to `max_length`.

    There is one BOS and one EOS, whether the tokenizer adds them, the text spells them out, or both: a BOS that the
    tokenizer has but does not add is put before the text, since models trained with one do badly without it. An empty
    text has no tokens. `end=False` leaves out EOS, for a prompt to generate from; an empty prompt gives BOS alone, or
    nothing.

    Raises:
        DataError: there is no callable tokenizer.
    """
    _refuse_no_tokenizer(tokenizer)
    bos = getattr(tokenizer, "bos_token_id", None)
    eos = getattr(tokenizer, "eos_token_id", None)
    rows = []
    how = {"add_special_tokens": True, **without_warning(tokenizer)}
    encoded = (ids for some in _portions(texts) for ids in tokenizer(some, **how)["input_ids"])
    for text, ids in zip(texts, encoded, strict=True):
        first, last = 0, len(ids)
        while bos is not None and ids[first : first + 1] == [bos]:
            first += 1
        while eos is not None and last > first and ids[last - 1] == eos:
            last -= 1
        start, close = ([one] if one is not None else [] for one in (bos, eos if end else None))
        rows.append([*start, *ids[first:last], *close][:max_length] if text or not end else [])
    return rows


def _portions(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts a tokenizer takes at once: memory goes by their letters, not by their number."""
    some, letters = list[str](), 0
    for text in map(readable, texts):
        if some and letters + len(text) > LETTERS_AT_ONCE:
            yield some
            some, letters = [], 0
        some.append(text)
        letters += len(text)
    if some:
        yield some


def _refuse_no_tokenizer(tokenizer: Any) -> None:
    if not callable(tokenizer):
        raise DataError(
            "data is text, but there is no tokenizer that can encode it",
            got=f"tokenizer {type(tokenizer).__name__}",
            fix="pass a Hugging Face tokenizer, or batches of token ids",
        )


def prompt_and_reference(row: Mapping[str, Any], tokenizer: Any) -> tuple[list[int], str] | None:
    """A row's prompt as token ids and its reference answer as text; None if the row has no prompt.

    `prompt` and `completion` are such a pair, and so is a chat whose last turn, if not the only one, is the
    assistant's: then the reference is what the template writes of it, special tokens left out. Nothing is truncated.
    """
    kind = kind_of(row.keys()).name
    if kind in ("ids", "text"):
        return None
    chat = as_chat(row, tokenizer)
    if chat is not None:
        return _last_answer(chat, tokenizer)
    prompt, completion = pair_of(row)
    (ids,) = encode([prompt], tokenizer, UNLIMITED, end=False)
    return (ids, completion) if ids else None


def _last_answer(chat: Chat, tokenizer: Any) -> tuple[list[int], str] | None:
    last = len(chat.turns) - 1
    if not last or chat.turns[last]["role"] not in (ASSISTANT, CALL):
        return None
    rendered = render(replace(chat, learned=[False] * last + [True]), tokenizer, untold)
    _, labels = labelled(rendered, tokenizer)
    answer = tokenizer.decode([token for token in labels if token != IGNORED], skip_special_tokens=True).strip()
    return question_ids(rendered.chat.until(last), tokenizer), answer


def question_ids(chat: Chat | Sequence[Mapping[str, Any]], tokenizer: Any, *, tell: Tell = untold) -> list[int]:
    """Token ids of a chat with the generation prompt behind it, in the tokenizer's chat template.

    `tell` is told of what the template has no use for.

    Raises:
        DataError: the template refuses the chat, or leaves out what is asked.
    """
    text = render_chat(chat, tokenizer, tell=tell, add_generation_prompt=True)
    refuse_left_out(chat if isinstance(chat, Chat) else cast("Chat", chat_of({"messages": chat})), tokenizer, text)
    ids: list[int] = tokenizer(text, add_special_tokens=False, **without_warning(tokenizer))["input_ids"]
    return ids


def _encode_row(
    row: Mapping[str, Any], kind: str, texts: Iterator[list[int]], tokenizer: Any, max_length: int, tell: Tell
) -> Encoded:
    if kind == "ids":
        return row_of_ids(row, tell=tell)
    if kind == "text":
        ids = next(texts)
        return Encoded(ids, ids)
    if kind == "question":
        question, answer = kind_of(row.keys()).needs
        tell("question_chat" if has_template(tokenizer) else "question_lines", question=question, answer=answer)
    chat = as_chat(row, tokenizer)
    if chat is not None:
        ids, labels = labelled(render(chat, tokenizer, tell), tokenizer)
    else:
        tell_unwritten(row, tell)
        ids, labels, _ = place_pair(*pair_of(row), tokenizer)
    return Encoded(ids, labels).until(max_length)


def count_answers(row: Mapping[str, Any], tokenizer: Any, max_length: int) -> tuple[int, int]:
    """Of the assistant's turns of a chat, how many are learned within `max_length` tokens, and how many there are.

    Both are 0 for a row that is no chat.
    """
    chat = as_chat(row, tokenizer)
    if chat is None:
        return 0, 0
    rendered = render(chat, tokenizer, untold)
    _, placed = place(rendered.text, tokenizer, pieces_of(tokenizer))
    read = max((here[1] for here in placed[:max_length] if here is not None), default=0)
    at = bytes_of(rendered.text)
    learned = sum(at[start] < read for start, _ in rendered.answers)
    return learned, sum(turn["role"] == ASSISTANT for turn in rendered.chat.turns)


def as_chat(row: Mapping[str, Any], tokenizer: Any) -> Chat | None:
    """The chat as which a row is learned; None if it is learned as text, or as prompt and completion."""
    return chat_of(row) if kind_of(row.keys()).name != "question" or has_template(tokenizer) else None


def tell_unwritten(row: Mapping[str, Any], tell: Tell) -> None:
    """Tell of columns for a chat template in a row learned without one; a question's system words are a line there."""
    kind = kind_of(row.keys())
    lines = SYSTEMS if kind.name == "question" else ()
    names = [column for column in CHAT if column in kind.may and column not in lines and row.get(column)]
    if names:
        tell("text_columns", names=", ".join(names))


def labelled(rendered: Rendered, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids of a rendered chat, and as labels those of the tokens with a byte of an answer.

    A token behind an answer is none of it because a tokenizer drops the space between the two.
    """
    ids, placed = place(rendered.text, tokenizer, pieces_of(tokenizer))
    at, text = bytes_of(rendered.text), rendered.text.encode()
    answers = sorted((at[start], at[stop]) for start, stop in rendered.answers)
    stops = [stop for _, stop in answers]
    nearest = [None if here is None else bisect_right(stops, here[0]) for here in placed]  # the first to end behind it
    is_learned = [
        here is not None
        and index is not None
        and index < len(answers)
        and answers[index][0] < here[1]
        and (here[1] <= stops[index] or text[here[0] : stops[index]].strip() != b"")
        for here, index in zip(placed, nearest, strict=True)
    ]
    return ids, [token if learned else IGNORED for token, learned in zip(ids, is_learned, strict=True)]


def pair_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """Prompt and completion of a row without a chat template; the turns before an answer are lines, a text has none."""
    kind = kind_of(row.keys()).name
    if kind == "text":
        return "", text_of(row, "text")
    if kind == "pair":
        return needed_text(row, "prompt"), needed_text(row, "completion")
    chat = chat_of(row)
    *asked, answer = [turn["content"] for turn in chat.turns] if chat is not None else [""]
    return "".join(f"{said}\n" for said in asked), answer


def place_pair(prompt: str, completion: str, tokenizer: Any) -> tuple[list[int], list[int], Placed]:
    """Ids and labels of prompt and completion, and the byte range of each token in the two of them joined.

    They are tokenized as one text, as the student will read them: a token with a byte of the completion is learned, and
    the end token with it. A tokenizer that cannot place its tokens in a text takes the two one by one.
    """
    text = readable(prompt + completion)
    (ids,) = encode([text], tokenizer, UNLIMITED)
    try:
        body, placed = place(text, tokenizer, pieces_of(tokenizer))
    except ConfigError:
        return _one_by_one(prompt, completion, tokenizer)
    ends = {getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos")}
    inner = [index for index, token in enumerate(body) if token not in ends]
    first, last = (inner[0], inner[-1] + 1) if inner else (0, 0)
    body, placed = body[first:last], placed[first:last]
    start = next((at for at in range(len(ids) - len(body) + 1) if ids[at : at + len(body)] == body), None)
    if start is None:
        return _one_by_one(prompt, completion, tokenizer)
    cut, after = len(readable(prompt).encode()), len(ids) - start - len(body)
    ranges: Placed = [*[None] * start, *placed, *[None] * after]
    given = start + sum(here is not None and here[1] <= cut for here in placed) if cut else 0  # else it is a text
    return ids, [IGNORED] * given + ids[given:], ranges


def _one_by_one(prompt: str, completion: str, tokenizer: Any) -> tuple[list[int], list[int], Placed]:
    (given,) = encode([prompt], tokenizer, UNLIMITED, end=False)
    eos = getattr(tokenizer, "eos_token_id", None)
    words = tokenizer([readable(completion)], add_special_tokens=False, **without_warning(tokenizer))["input_ids"][0]
    learned = [*words, *([eos] if eos is not None and words[-1:] != [eos] else [])]
    return given + learned, [IGNORED] * len(given) + learned, [None] * (len(given) + len(learned))


def refuse_other_tokenizer(teacher: Any, student: Any, *, fix: str = ONE_TOKENIZER) -> None:
    """Refuse two tokenizers whose ids stand for different tokens; if one of them is None there is nothing to compare.

    Raises:
        DataError: names the first ids that differ.
    """
    differ = differing_ids(teacher, student) if student is not None and teacher is not None else []
    if differ:
        first = ", ".join(f"id {index}: teacher {taught!r}, student {known!r}" for index, taught, known in differ[:3])
        raise DataError(
            f"teacher and student have different tokenizers, {len(differ)} ids differ",
            got=first,
            fix=fix,
        )


def differing_ids(teacher: Any, student: Any) -> list[tuple[int, str | None, str | None]]:
    """Ids that stand for different tokens, as (id, teacher's token, student's token); None for an id that one lacks."""
    taught, known = ({index: token for token, index in t.get_vocab().items()} for t in (teacher, student))
    ids = sorted(taught.keys() | known.keys())
    return [(id_, taught.get(id_), known.get(id_)) for id_ in ids if taught.get(id_) != known.get(id_)]
