"""Every causal architecture of transformers through the product: shrunk, cut, taught, saved, loaded, generating.

`python -m tests.models.architectures [KIND ...]` prints the table of docs/architectures.md.
"""

import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from apt_model.distill.students.depth import chosen_layers, depth_of, stacks_of
from apt_model.distill.students.fresh import create_compressed_model
from apt_model.errors import AptModelError
from apt_model.models.generate import answer_ids
from apt_model.models.pretrained import load_model, save_model
from apt_model.plugins.distillation_plugin import DistillationPlugin
from tests.models.tiny import KINDS, VOCABULARY, tiny_config

IDS = torch.randint(3, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))
SETTINGS = {"seed": 0, "learning_rate": 1e-2, "lang": "en"}


def logits_of(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), use_cache=False).logits
    return found


def teach(student: Any, teacher: Any) -> str:
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    DistillationPlugin(SETTINGS).distill_model(
        student, teacher, [{"input_ids": IDS}], num_epochs=1, device="cpu", sinks=[]
    )
    assert any(not torch.equal(p, before[name]) for name, p in student.named_parameters()), "nothing has moved"
    assert logits_of(student).isfinite().all(), "not finite"
    return "yes"


def without_others(teacher: Any, student: Any) -> str:
    """The student's logits are the teacher's where the layers that were dropped hand their input on, or are not there.

    The second where a layer reads what another than the last has left.
    """
    kept = chosen_layers(teacher.config, 2)
    stacks = stacks_of(teacher, student, depth_of(teacher.config), 2)

    def hand_on(_: Any, args: Any, kwargs: Any, output: Any) -> Any:
        before = args[0] if args else kwargs["hidden_states"]
        return before if isinstance(output, torch.Tensor) else (before, *output[1:])

    with ExitStack() as stack:
        for layers in (teacher.get_submodule(name) for name in stacks):
            for layer in (layer for at, layer in enumerate(layers) if at not in kept):
                stack.callback(layer.register_forward_hook(hand_on, with_kwargs=True).remove)
        said = logits_of(teacher)
    if not torch.allclose(logits_of(student), said, rtol=1e-4, atol=1e-4):
        shorter = deepcopy(teacher)
        for name in stacks:
            layers = shorter.get_submodule(name)
            shorter.set_submodule(name, torch.nn.ModuleList(layers[at] for at in kept))
        for module in shorter.modules():
            if type(getattr(module, "config", None)) is type(student.config):
                module.config = student.config
        torch.testing.assert_close(logits_of(student), logits_of(shorter), rtol=1e-4, atol=1e-4)
    return "yes"


def come_back(student: Any, place: Path) -> str:
    save_model(student, None, place)
    said = logits_of(student)
    torch.testing.assert_close(logits_of(AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)), said)
    torch.testing.assert_close(logits_of(load_model(place)[0]), said)
    return "yes"


def write_on(student: Any) -> str:
    rows = answer_ids(student, None, [[5, 6, 7], [9, 8]], max_new_tokens=4)
    assert len(rows) == 2
    return "yes"


def examine(kind: str) -> dict[str, str]:
    """What becomes of an architecture: each step's "yes", refusal, or raw error (which begins with "RAW")."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as room:
        place = Path(room)
        config = tiny_config(kind)
        try:
            AutoModelForCausalLM.from_config(config).save_pretrained(place / "teacher")
        except Exception:
            config.save_pretrained(place / "teacher")
            save_file({"nothing": torch.zeros(1)}, place / "teacher" / "model.safetensors", metadata={"format": "pt"})
        found: dict[str, Any] = {}

        def step(name: str, act: Callable[[], Any]) -> Any:
            try:
                result = act()
                found[name] = result if isinstance(result, str) else "yes"
                return result
            except AptModelError as error:
                found[name] = words(error)
            except Exception as error:
                if "-v" in sys.argv:
                    traceback.print_exc()
                found[name] = f"RAW {words(error)}"
            return None

        teacher = step("loaded", lambda: load_model(place / "teacher")[0])
        if teacher is None:
            return found
        fresh = step("fresh", lambda: create_compressed_model(teacher, num_layers=1))
        cut = step("cut", lambda: create_compressed_model(teacher, num_layers=2, init="teacher"))
        narrow = step("narrow", lambda: create_compressed_model(teacher, num_layers=2, hidden_size=16))
        if cut is not None:
            step("same", lambda: without_others(teacher, cut))
        for name, student in (("narrow", narrow), ("fresh", fresh), ("cut", cut)):
            if student is None:
                continue
            step(f"{name} taught", lambda student=student: teach(student, teacher))
            step(f"{name} saved", lambda student=student, name=name: come_back(student, place / name))
            step(f"{name} writes", lambda student=student: write_on(student))
    return found


def words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


if __name__ == "__main__":
    import logging
    import time
    import warnings

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for kind in [k for k in sys.argv[1:] if k != "-v"] or KINDS:
        began = time.time()
        found = examine(kind)
        bad = {k: v for k, v in found.items() if v != "yes"}
        print(kind, "OK" if not bad else "", bad or "", f"{time.time() - began:.1f}s", flush=True)
