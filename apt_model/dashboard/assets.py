"""The page's static files, read once into a table: no path from a request reaches the disk."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

INDEX = "index.html"
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
}


@dataclass(frozen=True)
class Asset:
    """One file: its bytes and media type."""

    content: bytes
    media_type: str


def read_assets(folder: Traversable | None = None) -> Mapping[str, Asset]:
    """Every file that a browser can use, by its path in `static/` (or in another folder)."""
    folder = folder if folder is not None else files("apt_model.dashboard").joinpath("static")
    return dict(_walk(folder, ""))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Asset]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif (kind := entry.name.rpartition(".")[2]) in TYPES:
            yield prefix + entry.name, Asset(entry.read_bytes(), TYPES[kind])
