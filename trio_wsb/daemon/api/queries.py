"""What a query asks for: parameters, and the page of a list, as Traefik's API has them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

from attrs import frozen

from trio_wsb.errors import BadRequest

MAX_FIELDS: Final = 20
DEFAULT_PER_PAGE: Final = 100
MAX_PER_PAGE: Final = 1000
_LONGEST_NUMBER: Final = 10

Item = TypeVar("Item")
Row = Mapping[str, Any]


def parse_query(query: str) -> dict[str, str]:
    """Return the parameters.

    Raises:
      BadRequest: it is malformed, or a parameter is there twice.

    """
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError as error:
        raise BadRequest(400, "the query is malformed") from error
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise BadRequest(400, "a parameter is there twice")
    return parameters


def number(parameters: Mapping[str, str], name: str, default: int, most: int, least: int = 0) -> int:
    """Return a parameter that is a number.

    Raises:
      BadRequest: it is none, or not from `least` to `most`.

    """
    text = parameters.get(name)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER):
        raise BadRequest(400, f"{name} must be a number from {least} to {most}")
    if not least <= int(text) <= most:
        raise BadRequest(400, f"{name} must be a number from {least} to {most}")
    return int(text)


@frozen
class Page:
    """A part of a list: the items, and the number of the page after it, 1 when there is none."""

    items: Sequence[Row]
    next: int


def page_of(rows: Sequence[Row], parameters: Mapping[str, str]) -> Page:
    """Return the page that `page` and `per_page` ask for, by Traefik's rules.

    Raises:
      BadRequest: there is no such page.

    """
    number_ = _positive(parameters, "page", 1)
    per_page = _positive(parameters, "per_page", DEFAULT_PER_PAGE)
    first = (number_ - 1) * per_page
    if number_ > 1 and first >= len(rows):
        raise BadRequest(400, f"invalid request: page: {number_}, per_page: {per_page}")
    last = first + per_page
    return Page(rows[first:last], number_ + 1 if last < len(rows) else 1)


def _positive(parameters: Mapping[str, str], name: str, default: int) -> int:
    text = parameters.get(name) or str(default)
    valid = text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER and int(text) > 0
    if not valid:
        raise BadRequest(400, f"invalid request: {name} must be a number above 0")
    return min(int(text), MAX_PER_PAGE) if name == "per_page" else int(text)


_SORTS: Mapping[str, Callable[[Row], Any]] = {
    "name": lambda row: row["name"],
    "provider": lambda row: (row["provider"], row["name"]),
    "status": lambda row: (row["status"], row["name"]),
    "priority": lambda row: (row.get("priority", 0), row["name"]),
    "rule": lambda row: (row.get("rule", ""), row["name"]),
    "service": lambda row: (row.get("service", ""), row["name"]),
    "type": lambda row: (row.get("type", ""), row["name"]),
    "entryPoints": lambda row: (row.get("entryPoints", []), row["name"]),
    "servers": lambda row: (len(row.get("serverStatus", ())), row["name"]),
}


def chosen(rows: Sequence[Row], parameters: Mapping[str, str]) -> list[Row]:
    """Return the rows that `search`, `status`, `serviceName` and `middlewareName` want, as `sortBy` and `direction` order them.

    `search` looks in names, rules and addresses of servers, without regard to case.

    Raises:
      BadRequest: there is nothing of the name `sortBy`.

    """
    search = parameters.get("search", "").lower()
    status = parameters.get("status", "").lower()
    service, middleware = parameters.get("serviceName"), parameters.get("middlewareName")
    found = [
        row
        for row in rows
        if (not status or row["status"] == status)
        and (not search or any(search in text.lower() for text in _texts(row)))
        and (service is None or _named(row.get("service"), row, service))
        and (middleware is None or middleware in row.get("middlewares", ()))
    ]
    by = parameters.get("sortBy") or "name"
    if by not in _SORTS:
        raise BadRequest(400, f"sortBy must be one of {', '.join(sorted(_SORTS))}")
    return sorted(found, key=_SORTS[by], reverse=parameters.get("direction") == "desc")


def _named(name: str | None, row: Row, wanted: str) -> bool:
    return name is not None and wanted in {name, f"{name}@{row['provider']}"}


def _texts(row: Row) -> Collection[str]:
    return [row["name"], row.get("rule", ""), *row.get("serverStatus", ())]
