"""The tables of docs/reference/metrics.md, made from the catalogue: ``python -m trio_wsb.daemon.metrics.reference``.

It reads the page and prints it with the tables between its markers as they should be; the words around them stay.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from trio_wsb.daemon.metrics.catalogue import GROUPS
from trio_wsb.daemon.metrics.definition import Definition, Group

BEGIN: Final = (
    "<!-- Made by `python -m trio_wsb.daemon.metrics.reference`; do not edit down to the end mark. -->\n"
)
END: Final = "<!-- End of what is made. -->\n"

PAGE: Final = Path("docs/reference/metrics.md")


def tables() -> str:
    """Return every metric, by groups."""
    return "\n".join(_group(group) for group in GROUPS)


def renewed(page: str) -> str:
    """Return `page` with its tables as they should be.

    Raises:
      ValueError: it has not both markers.

    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no place for the tables")
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def _group(group: Group) -> str:
    when = f"\nWith `{group.when}: true`.\n" if group.when else ""
    rows = "".join(_row(definition) for definition in group.definitions)
    return (
        f"## {group.title}\n{when}\n| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n{rows}"
    )


def _row(definition: Definition) -> str:
    labels = ", ".join(f"`{label}`" for label in definition.labels)
    return f"| `{definition.name}` | {definition.kind} | {labels} | {definition.help} |\n"


if __name__ == "__main__":
    sys.stdout.write(renewed(PAGE.read_text("utf-8")))
