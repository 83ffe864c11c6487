"""All targets by their names, and what they begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from fuzz import arrivals, frames, http, texts

TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    **http.TARGETS,
    **frames.TARGETS,
    **arrivals.TARGETS,
    **texts.TARGETS,
}

CORPUS: Final = Path(__file__).parent / "corpus"
"""A directory for each target; every file in it is an input."""


def inputs(target: str) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each input that is kept for `target`."""
    for path in sorted((CORPUS / target).glob("*")):
        yield path.name, path.read_bytes()
