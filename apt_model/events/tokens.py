"""What both models said on a card, token by token: a plain record. Knows nothing of tokenizers or screens."""

from dataclasses import dataclass

Candidate = tuple[str, float]  # a token's text, its probability


@dataclass(frozen=True, kw_only=True)
class TokenDetail:
    """A card's tokens, one entry of every column for each of its L positions; everything is at temperature 1.

    Attributes:
        teacher, student: the text that each model's most probable token adds, so that all of them joined are the
            text. A token that is a part of a character adds "", and the one that completes it the whole character.
        kl_nats: KL(teacher ‖ student).
        teacher_top, student_top: the best tokens, at most five, and their probabilities, the best first; a token that
            is a part of a character is named by its bytes, as ⟨E4⟩, and a special token by its name.
        teacher_entropy, student_entropy: nats; empty where it is not known, as a cached teacher's.
    """

    teacher: tuple[str, ...]
    student: tuple[str, ...]
    kl_nats: tuple[float, ...]
    teacher_top: tuple[tuple[Candidate, ...], ...]
    student_top: tuple[tuple[Candidate, ...], ...]
    teacher_entropy: tuple[float, ...] = ()
    student_entropy: tuple[float, ...] = ()
