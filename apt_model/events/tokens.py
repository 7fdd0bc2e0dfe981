"""Both models' predictions on a card, token by token: a plain record. Knows nothing of tokenizers or screens."""

from dataclasses import dataclass

Candidate = tuple[str, float]  # a token's text, its probability


@dataclass(frozen=True, kw_only=True)
class TokenDetail:
    """A card's tokens: each field has one entry for each of the L positions; all numbers are at temperature 1.

    Attributes:
        teacher, student: the text that each model's most probable token adds; joined, they are the whole text of a
            predicted card. A token that is a part of a character adds "", and the one that completes it the whole
            character; of characters that stay in pieces "▯" stands for a run.
        kl_nats: KL(teacher ‖ student).
        teacher_top, student_top: the most probable tokens, at most five, with their probabilities, highest first; a
            token that is a part of a character is named by its bytes, as ⟨E4⟩, and a special token by its name.
        teacher_entropy, student_entropy: nats; empty if unknown, as for a cached teacher.
    """

    teacher: tuple[str, ...]
    student: tuple[str, ...]
    kl_nats: tuple[float, ...]
    teacher_top: tuple[tuple[Candidate, ...], ...]
    student_top: tuple[tuple[Candidate, ...], ...]
    teacher_entropy: tuple[float, ...] = ()
    student_entropy: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check that the fields have one length, so that a position means the same in each."""
        lengths = {name: len(column) for name, column in vars(self).items()}
        optional = {name for name in ("teacher_entropy", "student_entropy") if not lengths[name]}
        if len({length for name, length in lengths.items() if name not in optional}) > 1:
            raise ValueError(f"columns of tokens differ in length: {lengths}")
