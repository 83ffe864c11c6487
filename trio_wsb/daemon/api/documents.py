"""Our own documents: sessions, backends and events, for programs and for the dashboard."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from itertools import islice
from typing import Final

import trio

from trio_wsb.daemon.api.feed import event_view
from trio_wsb.daemon.api.queries import number
from trio_wsb.daemon.sessionviews import session_filter, session_view
from trio_wsb.daemon.views import DaemonState, View, backends
from trio_wsb.errors import BadRequest, HTTPError
from trio_wsb.proxy.session import Session

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
"""Sessions in one answer."""

MAX_SEARCH: Final = 200
"""Characters of a text that is searched for."""

BATCH: Final = 200
"""Sessions looked at before other tasks run: looking at ten thousand takes longer than a message may wait."""

BACKENDS_IN_PIECE: Final = 50


async def sessions(state: DaemonState, parameters: Mapping[str, str]) -> View:
    """Return a page of the sessions that fit, the oldest first or last, and how many fit in all.

    Raises:
      BadRequest: a parameter is unknown or has a wrong value.

    """
    only(parameters, {"backend", "service", "client", "search", "order", "limit", "offset"})
    limit = number(parameters, "limit", DEFAULT_LIMIT, MAX_LIMIT)
    offset = number(parameters, "offset", 0, 10**9)
    order = parameters.get("order") or "oldest"
    if order not in {"oldest", "newest"}:
        raise BadRequest(400, "order must be oldest or newest")
    fits = session_filter(
        state.backends,
        backend=parameters.get("backend") or None,
        service=parameters.get("service") or None,
        client=parameters.get("client") or None,
    )
    found = _search(parameters.get("search", ""))
    table, drains = state.proxy.sessions, state.mover.drains
    every: Iterable[Session] = tuple(table)[::-1] if order == "newest" else table
    total, page = 0, list[View]()
    ordered = iter(every)
    while batch := list(islice(ordered, BATCH)):
        now = trio.current_time()
        for session in batch:
            # It may have ended since the iteration began.
            if session in table and fits(session) and found(session):
                if offset <= total < offset + limit:
                    drain = drains.covering(session.backend.url, session.service)
                    page.append(session_view(session, now, draining=drain is not None))
                total += 1
        await trio.lowlevel.checkpoint()
    return {"total": total, "offset": offset, "limit": limit, "sessions": page}


def session(state: DaemonState, text: str) -> View:
    """Return one live session.

    Raises:
      HTTPError: 404, there is none with this id; ids are not used again.

    """
    if text.isascii() and text.isdecimal() and len(text) <= 18:
        found = state.proxy.sessions.find(int(text))
        if found is not None:
            drain = state.mover.drains.covering(found.backend.url, found.service)
            return session_view(found, trio.current_time(), draining=drain is not None)
    raise HTTPError(404, "no live session has this id")


async def backend_pieces(state: DaemonState, service: str | None) -> AsyncGenerator[bytes, None]:
    """Yield the document of the backends in pieces, so that a thousand of them delay nobody's messages."""
    yield b'{"backends": ['
    rows = (row for row in backends(state, trio.current_time()) if service in {None, row["service"]})
    first = True
    while piece := list(islice(rows, BACKENDS_IN_PIECE)):
        text = ", ".join(json.dumps(row, allow_nan=False) for row in piece)
        yield ("" if first else ", ").encode() + text.encode()
        first = False
    yield b"]}\n"


def events(state: DaemonState, parameters: Mapping[str, str]) -> View:
    """Return the events that are remembered, the oldest first; with `after` those after that number.

    Raises:
      BadRequest: a parameter is unknown or has a wrong value.

    """
    only(parameters, {"after"})
    after = number(parameters, "after", 0, 10**15)
    return {
        "recorded": state.events.recorded_total,
        "events": [event_view(event) for event in state.events.since(after)],
    }


def only(parameters: Mapping[str, str], known: set[str]) -> None:
    """Refuse parameters that are not known: a filter that is passed over in silence shows what was to be left out.

    Raises:
      BadRequest: there is such a one.

    """
    if parameters.keys() - known:
        hint = f"; there are {', '.join(sorted(known))}" if known else ""
        raise BadRequest(400, f"there is no parameter of that name{hint}")


def _search(text: str) -> Callable[[Session], bool]:
    """Return whether a session has each of the words in what people know of it, without regard to case."""
    if len(text) > MAX_SEARCH:
        raise BadRequest(400, f"search has at most {MAX_SEARCH} characters")
    words = text.lower().split()
    if not words:
        return lambda _: True

    def fits(each: Session) -> bool:
        known = (
            f"{each.id} {each.client} {each.host}{each.path} {each.backend.url} {each.backend.pod_name or ''} "
            f"{each.service} {each.router} {each.entry_point}"
        ).lower()
        return all(word in known for word in words)

    return fits
