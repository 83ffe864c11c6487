"""The layers of the house: imports go downwards only, and pure logic never touches trio or a socket."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "trio_wsb"

LAYERS: dict[str, float] = {
    "errors": 0,
    "units": 0,
    "addresses": 0,
    "http": 1,
    "websocket": 1,
    "routing": 1,
    "balancing": 1,
    "middleware": 1.2,  # works on heads, and shares regular expressions with the rules
    "config": 1.5,  # checks rules and names strategies, so it stands on the others of its layer
    "net": 2,
    "observe": 3.5,  # looks at sessions and requests, and nothing of theirs looks at it
    "background": 3,
    "providers": 3.2,  # ask from time to time, as the background does
    "proxy": 3,
    "daemon": 4,
    "demo": 4,
    "cli": 5,
    "__init__": -1,
    "__main__": 6,
}
PURE = {name for name, layer in LAYERS.items() if 0 <= layer < 2}
IMPURE_MODULES = {"trio", "socket", "ssl", "asyncio", "threading", "time", "subprocess", "httpx", "selectors"}
MAX_LINES = 500

MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """Return the top-level package or module that `path` belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            if module == "trio_wsb":
                yield from (f"trio_wsb.{alias.name}" for alias in node.names)
            else:
                yield module


def test_every_room_has_a_layer() -> None:
    assert {room(path) for path in MODULES} == set(LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(path: Path) -> None:
    here = LAYERS[room(path)]
    for name in imports(path):
        if not name.startswith("trio_wsb.") or name == "trio_wsb.__version__":
            continue
        target = name.split(".")[1]
        if target == room(path):
            continue
        assert LAYERS[target] < here, f"{path.relative_to(PACKAGE)} imports {name}, which is not below it"


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) in PURE], ids=str)
def test_pure_logic_stays_pure(path: Path) -> None:
    found = {name.partition(".")[0] for name in imports(path)} & IMPURE_MODULES
    assert not found, f"{path.relative_to(PACKAGE)} is pure logic and imports {found}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_stay_short(path: Path) -> None:
    lines = path.read_text().count("\n")
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert docstring, "a module says what it is for"
    assert lines <= MAX_LINES or "500 lines" in docstring, f"{lines} lines: split it, or give the reason"
