"""The colours and dashes of what is plotted: one look for one quantity, in plots, in a notebook and on the page.

The page has its own copy, in dashboard/static/style.css and lazy.js, since a browser cannot read this module; a test
compares both. The scale of a share is the same everywhere: 0 to 100 percent, and more is better of agreement and
mastery, less of laziness.
"""

from typing import NamedTuple

COLOURS = {  # of the page by day; each at least 3 : 1 on white
    "ink": "#23272c",
    "accent": "#1d5c57",
    "teacher": "#2b4a8b",
    "student": "#8a3d12",
    "pen": "#a8201a",
    "gold": "#7a5600",
    "green-fill": "#3f9a5f",
    "yellow-fill": "#b98a1b",
    "red-fill": "#cf4a40",
}
HEAT = ("#f0e0c4", "#d6dcb9", "#a8cfab", "#62ae92", "#2c776a")  # fifths of a share, the lowest first
HEAT_INK = ("#23272c", "#23272c", "#23272c", "#23272c", "#ffffff")  # of the numbers on them
FEW = 3  # texts: with fewer, a mean says too little to be given a colour


class Curve(NamedTuple):
    """How a quantity is drawn: the name of its colour, and its dash ("solid", "dashed", "dotted", "mixed")."""

    tone: str
    dash: str


CURVES = {
    "total": Curve("ink", "solid"),
    "kd": Curve("teacher", "dashed"),
    "ce": Curve("student", "dotted"),
    "laziness": Curve("pen", "solid"),
    "text": Curve("gold", "dashed"),
    "kl": Curve("teacher", "dotted"),
    "agreement": Curve("accent", "solid"),
    "gap": Curve("student", "solid"),
    "unseen_agreement": Curve("accent", "solid"),
    "unseen_laziness": Curve("pen", "dashed"),
    "learned_agreement": Curve("teacher", "mixed"),
    "learned_laziness": Curve("gold", "dotted"),
}


def heat_of(share: float) -> int:
    """Which fifth a share, 0..1, is in as it is written, in whole percent: 0 to 4."""
    return min(4, max(0, round(100 * share) // 20))
