"""Forward pass of any causal language model: a batch in, logits or hidden states out; batches checked beforehand.

Knows how models differ in what they take and return; knows nothing of losses or of who is teacher and student.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from apt_model.data.batch import Batch
from apt_model.data.encode import IGNORED
from apt_model.errors import DataError, ModelError
from apt_model.events.records import ModelCard
from apt_model.models.output_head import OutputHead
from apt_model.models.pretrained import get_model_size


class Forward:
    """Calls a Hugging Face model, or a plain module, with the arguments that its `forward` accepts.

    Args:
        model: maps token ids (B, L) to logits (B, L, V): a tensor, a tuple or list that begins with it, a dict with
            `logits`, or an object with `.logits`.
        role: "teacher" or "student", for messages.
    """

    def __init__(self, model: nn.Module, role: str) -> None:
        self.role = role
        self._accepted = _accepted_arguments(model)
        self._limits = limits(model)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (B, L, V) of `model`: the one given to `__init__`, or a wrapper around it.

        Raises:
            ModelError: the output has no logits, or logits of another shape.
        """
        logits = _find_logits(self._call(model, batch), self.role)
        if logits.ndim != 3 or logits.shape[:2] != batch.input_ids.shape:
            raise ModelError(
                f"the {self.role}'s logits do not fit the batch",
                got=f"shape {tuple(logits.shape)}",
                expected=f"({', '.join(map(str, batch.input_ids.shape))}, vocabulary)",
            )
        return logits

    def hidden(self, model: nn.Module, batch: Batch, head: OutputHead) -> Tensor:
        """Hidden states (B, L, H) of `model`, as they enter its head."""
        with head.bypassed() as seen:
            self._call(model, batch)
        return seen[0]

    def _call(self, model: nn.Module, batch: Batch) -> Any:
        known = {"attention_mask": batch.attention_mask, "use_cache": False}
        arguments = {name: value for name, value in known.items() if name in self._accepted}
        if "input_ids" in self._accepted:
            return model(input_ids=batch.input_ids, **arguments)
        return model(batch.input_ids, **arguments)

    def check(self, batch: Batch) -> None:
        """Refuse a batch that the model cannot read. Call it while the batch is on the CPU: it reads values.

        Raises:
            DataError: a token id or label outside the vocabulary, or more tokens than the model has positions.
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
        if positions is not None and batch.input_ids.shape[1] > positions:
            raise DataError(
                f"sequence too long for the {self.role}",
                got=f"{batch.input_ids.shape[1]} tokens",
                expected=f"at most {positions}",
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
        name=type(model).__name__,
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
    return accepted


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
