"""The verdict of a run as one line, for notebooks and the Python prompt. Knows nothing of any language."""

from typing import Any


class VerdictLine:
    """Gives a `RunFinished` a `repr` of one line, where a dataclass shows every field; None is left out."""

    def __repr__(self) -> str:
        run: Any = self
        parts = [f"epochs={run.epochs}", f"steps={run.step}"]
        for kind in ("unseen", "learned"):
            read = getattr(run, kind)
            parts += [] if read is None else [f"agreement on {kind} text {read.agreement.value:.1%}"]
        if run.first_laziness is not None and run.last_laziness is not None:
            parts.append(f"laziness {run.first_laziness:.1%} → {run.last_laziness:.1%}")
        if run.first_loss is not None and run.last_loss is not None:
            parts.append(f"loss {run.first_loss:.3g} → {run.last_loss:.3g}")
        if run.validation is not None:
            parts.append(f"validation loss {run.validation.loss:.3g}, agreement {run.validation.agreement:.1%}")
        parts += [f"{run.seconds:.1f} s", *([f"display failures={len(run.failures)}"] if run.failures else [])]
        return f"RunFinished({', '.join(parts)})"
