"""All targets by their names, and what they begin with."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
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
"""A file for each target; every line of it is an input in base64, the shortest first."""


def inputs(target: str) -> list[bytes]:
    """Return the inputs that are kept for `target`."""
    path = CORPUS / f"{target}.b64"
    return [base64.b64decode(line) for line in path.read_text().splitlines()] if path.exists() else []


def pack(target: str, found: Iterable[bytes]) -> None:
    """Keep these inputs for `target`, and no others."""
    lines = [base64.b64encode(data).decode() for data in sorted(found, key=lambda data: (len(data), data))]
    (CORPUS / f"{target}.b64").write_text("".join(f"{line}\n" for line in lines))
