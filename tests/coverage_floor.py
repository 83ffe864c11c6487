"""How much of the program the tests reach, layer by layer, and the floors under that.

    coverage json -q -o - | python -m tests.coverage_floor

For each room of the house there are two figures: which part of its branches was taken, and which part of its lines was run. Both have to
be above the floor, for the pure layers together and for the whole; where they are not, the files that lack most are named.

Exit status: 0 above, 1 below, 2 not a report of coverage.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, Final

from attrs import define

from tests.test_layers import LAYERS, PURE

PURE_FLOOR: Final = 98.0
"""Percent of the layers without I/O: there is no excuse for a branch that no test takes, but that it cannot be."""

WHOLE_FLOOR: Final = 90.0
"""Percent of everything: what only happens on other machines, as root, or when the disk is on fire, is the rest."""

NAMED: Final = 12
"""Files that are named when a floor is not kept."""


class NotAReport(Exception):
    """The document is none that `coverage json` writes with branches in it."""


@define
class Reached:
    """What was reached of something."""

    lines: int = 0
    all_lines: int = 0
    branches: int = 0
    all_branches: int = 0

    def add(self, summary: Mapping[str, Any]) -> None:
        """Add what `coverage json` says of a file.

        Raises:
          NotAReport: it says nothing of lines or branches.

        """
        try:
            self.lines += int(summary["covered_lines"])
            self.all_lines += int(summary["num_statements"])
            self.branches += int(summary["covered_branches"])
            self.all_branches += int(summary["num_branches"])
        except (KeyError, TypeError, ValueError) as error:
            raise NotAReport(f"no figures of lines and branches: {error}") from error

    @property
    def of_lines(self) -> float:
        """Percent of the lines; 100 of none."""
        return 100 * self.lines / self.all_lines if self.all_lines else 100.0

    @property
    def of_branches(self) -> float:
        """Percent of the branches; 100 of none."""
        return 100 * self.branches / self.all_branches if self.all_branches else 100.0

    @property
    def missed(self) -> int:
        """Lines and branches that were not reached."""
        return self.all_lines - self.lines + self.all_branches - self.branches


def room_of(file: str) -> str:
    """Return the package or module at the top that `file` belongs to, "" for one that is none of the program's."""
    parts = PurePath(file).parts
    if "trio_wsb" not in parts[:-1]:
        return ""
    return parts[parts.index("trio_wsb") + 1].removesuffix(".py")


def judge(document: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Return the lines to print for a report, and whether both floors are kept.

    Raises:
      NotAReport: it is none, or has nothing of the program.

    """
    rooms: defaultdict[str, Reached] = defaultdict(Reached)
    files: dict[str, Reached] = {}
    pure, whole = Reached(), Reached()
    found = document.get("files")
    if not isinstance(found, Mapping):
        raise NotAReport("it has no files")
    for file, each in found.items():
        room = room_of(file)
        if not room:
            continue
        summary = each["summary"] if isinstance(each, Mapping) and "summary" in each else {}
        files[file] = Reached()
        for reached in (rooms[room], files[file], whole, *((pure,) if room in PURE else ())):
            reached.add(summary)
    if not files:
        raise NotAReport("nothing of trio_wsb is in it")
    lines = [f"{'':28}{'lines':>10}{'branches':>10}"]
    lines += [
        _line(room, rooms[room]) for room in sorted(rooms, key=lambda room: (LAYERS.get(room, 9.0), room))
    ]
    lines += ["", _line("pure layers", pure, PURE_FLOOR), _line("everything", whole, WHOLE_FLOOR)]
    missing: list[str] = []
    if not _kept(pure, PURE_FLOOR):
        missing += _most_missed(
            {file: reached for file, reached in files.items() if room_of(file) in PURE}.items(), "pure layers"
        )
    if not _kept(whole, WHOLE_FLOOR):
        missing += _most_missed(files.items(), "everything")
    return [*lines, *missing], not missing


def _kept(reached: Reached, floor: float) -> bool:
    return min(reached.of_lines, reached.of_branches) >= floor


def _line(name: str, reached: Reached, floor: float | None = None) -> str:
    text = f"{name:28}{reached.of_lines:9.1f}%{reached.of_branches:9.1f}%"
    if floor is None:
        return text
    return f"{text}   {'at least' if _kept(reached, floor) else 'BELOW'} {floor:g} %"


def _most_missed(files: Iterable[tuple[str, Reached]], what: str) -> list[str]:
    ranked = sorted(files, key=lambda item: -item[1].missed)[:NAMED]
    rows = [f"  {file}: {reached.missed} lines and branches" for file, reached in ranked if reached.missed]
    return ["", f"{what}: most is not reached in", *rows]


def main() -> int:
    """Judge the report on standard input."""
    try:
        lines, kept = judge(json.load(sys.stdin))
    except (NotAReport, ValueError, AttributeError) as error:
        print(f"coverage_floor: this is no report of coverage: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
