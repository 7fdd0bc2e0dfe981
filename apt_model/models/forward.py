"""Forward pass of any causal language model: a batch in, logits or hidden states out; batches checked beforehand.

Knows how models differ in what they take and return; knows nothing of losses or of who is teacher and student.
"""

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from apt_model.data.batch import Batch
from apt_model.data.encoded import IGNORED
from apt_model.errors import DataError, ModelError
from apt_model.events.records import ModelCard
from apt_model.models.neighbours import keeps_apart
from apt_model.models.output_head import OutputHead
from apt_model.models.quiet import quiet_about_masks
from apt_model.models.reading import running
from apt_model.models.sharding import class_of
from apt_model.models.weights import get_model_size

_KEEPS_APART: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # models, as they were tried out


class Forward:
    """Calls a Hugging Face model, or a plain module, with the arguments that its `forward` accepts.

    Texts that a batch has packed into one row do not see each other. A model that keeps them apart by their positions
    (tried out once, see `keeps_apart`) reads the rows as they are; any other reads each text in a row of its own, and
    what it says of them is put back in its place.

    Args:
        model: maps token ids (B, L) to logits (B, L, V): a tensor, a tuple or list that begins with it, a dict with
            `logits`, or an object with `.logits`.
        role: "teacher" or "student", for messages.
    """

    def __init__(self, model: nn.Module, role: str) -> None:
        self.role = role
        self._accepted = _accepted_arguments(model)
        self._limits = limits(model)
        self._has_run = False

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (B, L, V) of `model`: the one given to `__init__`, or a wrapper around it.

        Raises:
            ModelError: the output has no logits, or logits of another shape; positions that it does not take; whatever
                the model raises the first time.
        """
        read = self._readable(model, batch)
        logits = _find_logits(self._call(model, read), self.role)
        if logits.ndim != 3 or logits.shape[:2] != read.input_ids.shape:
            raise ModelError(
                f"the {self.role}'s logits do not fit the batch",
                got=f"shape {tuple(logits.shape)}",
                expected=f"({', '.join(map(str, read.input_ids.shape))}, vocabulary)",
            )
        return logits if read is batch or batch.segments is None else batch.segments.put_back(logits)

    def hidden(self, model: nn.Module, batch: Batch, head: OutputHead) -> Tensor:
        """Hidden states (B, L, H) of `model`, as they enter its head."""
        read = self._readable(model, batch)
        with head.bypassed() as seen:
            self._call(model, read)
        return seen[0] if read is batch or batch.segments is None else batch.segments.put_back(seen[0])

    def try_out(self, model: nn.Module, batch: Batch) -> None:
        """Find out whether the model keeps packed texts apart, if the batch has some, before it is to read them."""
        self._readable(model, batch)

    def _readable(self, model: nn.Module, batch: Batch) -> Batch:
        """The batch itself, or its packed texts in rows of their own, where the model would not keep them apart."""
        segments = batch.segments
        if segments is None or not segments.is_packed:
            return batch
        most, length = self._limits[1], batch.input_ids.shape[1]
        is_beyond = most is not None and length > most  # GPT-Neo has a mask of that size
        if not segments.is_dense or is_beyond or "position_ids" not in self._accepted:
            return batch.apart
        plain = extract_model_from_parallel(model, keep_torch_compile=False)  # no other process need take part
        if plain not in _KEEPS_APART:
            ids = batch.input_ids[batch.attention_mask != 0]
            _KEEPS_APART[plain] = keeps_apart(plain, partial(self._logits, plain), ids)
        return batch if _KEEPS_APART[plain] else batch.apart

    def _logits(self, model: nn.Module, ids: Tensor, positions: Tensor | None) -> Tensor:
        mask = torch.ones_like(ids)
        batch = Batch(input_ids=ids, attention_mask=mask, labels=ids, position_ids=positions)
        return _find_logits(self._call(model, batch), self.role)

    def _call(self, model: nn.Module, batch: Batch) -> Any:
        known: dict[str, Any] = {"attention_mask": batch.attention_mask, "use_cache": False}
        segments = batch.segments
        if segments is not None:
            self._refuse_positions(batch)
            known["position_ids"] = batch.position_ids
            if segments.is_packed:  # transformers looks for packed texts only where there is no mask
                del known["attention_mask"]
        arguments = {name: value for name, value in known.items() if name in self._accepted}
        if "input_ids" in self._accepted:
            call = partial(model, input_ids=batch.input_ids, **arguments)
        else:
            call = partial(model, batch.input_ids, **arguments)
        with (
            nullcontext() if self._has_run else running(model, f"the {self.role} cannot be run"),
            nullcontext() if "attention_mask" in known else quiet_about_masks(),
        ):
            output = call()
        self._has_run = True
        return output

    def _refuse_positions(self, batch: Batch) -> None:
        """Refuse positions that do not count each text's tokens from 0, if the model does not take any.

        Raises:
            ModelError: names the model's role.
        """
        if batch.segments is not None and not batch.segments.is_plain and "position_ids" not in self._accepted:
            raise ModelError(
                f"the {self.role} takes no position_ids, but the batch has some of its own",
                got="positions other than 0, 1, 2 … from the beginning of each text",
                fix="leave position_ids out, or take a model whose forward accepts them",
            )

    def check(self, batch: Batch) -> None:
        """Refuse a batch that the model cannot read. Call it while the batch is on the CPU: it reads values.

        Raises:
            DataError: a token id or label outside the vocabulary, or more tokens than the model has positions.
            ModelError: the batch has positions of its own, and the model takes none.
        """
        vocabulary, positions = self._limits
        outside = _outside(vocabulary, batch.input_ids)
        if outside is not None:
            raise DataError(
                f"token id outside the {self.role}'s vocabulary",
                got=outside,
                expected=f"0 to {vocabulary - 1}" if vocabulary is not None else "0 or more",
                fix="encode the data with the model's own tokenizer",
            )
        labels = batch.labels[batch.labels != IGNORED]
        outside = _outside(vocabulary, labels) if len(labels) else None
        if outside is not None:
            raise DataError(
                f"label outside the {self.role}'s vocabulary",
                got=outside,
                expected=f"{IGNORED}, or a token id",
                fix=f"give every label that is not to be learned the value {IGNORED}",
            )
        self._check_positions(batch, positions)

    def _check_positions(self, batch: Batch, most: int | None) -> None:
        self._refuse_positions(batch)
        if batch.position_ids is not None:
            outside = _outside(most, batch.position_ids)
            if outside is not None:
                raise DataError(
                    f"position_ids outside the {self.role}'s positions",
                    got=outside,
                    expected=f"0 to {most - 1}" if most is not None else "0 or more",
                    fix="let positions begin anew with each text of a row, or give shorter texts",
                )
        elif most is not None and batch.input_ids.shape[1] > most:
            raise DataError(
                f"sequence too long for the {self.role}",
                got=f"{batch.input_ids.shape[1]} tokens",
                expected=f"at most {most}",
                fix="set max_length to that, or give shorter rows",
            )


def _outside(vocabulary: int | None, ids: Tensor) -> int | None:
    """The lowest id if it is below 0, else the highest if it is not in the vocabulary, else None."""
    lowest, highest = map(int, ids.aminmax())
    if lowest < 0:
        return lowest
    return highest if vocabulary is not None and highest >= vocabulary else None


def model_card(model: nn.Module) -> ModelCard:
    """Summary of a model: class, parameters, megabytes, layers, width; tied parameters count once."""
    config = getattr(model, "config", None)
    layers, hidden_size = (getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size"))
    return ModelCard(
        name=class_of(model).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        megabytes=get_model_size(model),
        layers=layers if isinstance(layers, int) else None,
        hidden_size=hidden_size if isinstance(hidden_size, int) else None,
    )


def _accepted_arguments(model: nn.Module) -> set[str]:
    model = extract_model_from_parallel(model, keep_torch_compile=False)
    parameters = inspect.signature(model.forward).parameters
    accepted = set(parameters)
    takes_anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if takes_anything and hasattr(model, "config"):
        accepted |= {"input_ids", "attention_mask", "use_cache"}
    wrapped = getattr(model, "get_base_model", None)  # of peft: hands everything through
    return accepted | _accepted_arguments(wrapped()) if takes_anything and callable(wrapped) else accepted


def limits(model: nn.Module) -> tuple[int | None, int | None]:
    """Vocabulary size and maximum number of positions; None where the model has no embedding or no such limit.

    Rotary models have no hard limit of positions.
    """
    get_embeddings = getattr(model, "get_input_embeddings", None)
    embeddings = get_embeddings() if callable(get_embeddings) else None
    vocabulary = embeddings.num_embeddings if isinstance(embeddings, nn.Embedding) else None
    config = getattr(model, "config", None)
    rotary = getattr(config, "rope_parameters", None) is not None
    positions = None if rotary else getattr(config, "max_position_embeddings", None)
    return vocabulary, positions if isinstance(positions, int) and positions > 0 else None  # XLNet says -1


def vocabulary_of(model: nn.Module) -> int | None:
    """Columns of the model's logits, read off its head or else its embedding; None if it names neither."""
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if callable(get_head) else None
    return head.out_features if isinstance(head, nn.Linear) else limits(model)[0]


def shared_vocabulary(*widths: int | None) -> int | None:
    """The number of logit columns that all models have; None if one of them is unknown."""
    known = [width for width in widths if width is not None]
    return min(known) if len(known) == len(widths) else None


def _find_logits(output: Any, role: str) -> Tensor:
    if isinstance(output, Mapping):
        found = output.get("logits")
    elif isinstance(output, tuple | list):
        found = output[0] if output else None
    else:
        found = getattr(output, "logits", output)
    if isinstance(found, Tensor):
        return found
    seen = f"keys {sorted(map(str, output))}" if isinstance(output, Mapping) else type(output).__name__
    raise ModelError(f"the {role} returned no logits", got=seen, expected="a tensor, or an output with `logits`")
