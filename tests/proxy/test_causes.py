"""The closed list of causes, and that the documentation has each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_wsb.proxy.causes import CLOSE_CODES, Cause
from trio_wsb.websocket.closecodes import is_valid_close_code

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "sessions.md"


def rows() -> dict[str, list[str]]:
    """Return the rows of the page's table of causes, by cause."""
    table = PAGE.read_text().partition("| cause |")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_the_page_has_every_cause_and_no_other() -> None:
    assert list(rows()) == [cause.value for cause in Cause]


@pytest.mark.parametrize("cause", list(Cause))
def test_the_page_says_who_ended_it_and_what_both_sides_are_told(cause: Cause) -> None:
    meaning, side, to_client, to_backend = rows()[cause.value]
    assert meaning
    assert side == cause.side
    if cause in CLOSE_CODES:
        assert [to_client.split()[0], to_backend.split()[0]] == [str(code) for code in CLOSE_CODES[cause]]
    else:
        assert not any(character.isdigit() for character in to_client + to_backend)


@pytest.mark.parametrize("codes", CLOSE_CODES.values())
def test_every_code_may_be_sent(codes: tuple[int, int]) -> None:
    assert all(is_valid_close_code(code) for code in codes)


def test_the_names_are_those_of_log_metrics_and_api() -> None:
    assert all(cause.value == cause.name.lower() for cause in Cause)


def test_what_a_side_did_is_that_sides_end() -> None:
    assert Cause.CLIENT_CLOSED.side == Cause.CLIENT_LOST.side == "client"
    assert Cause.BACKEND_CLOSED.side == Cause.BACKEND_LOST.side == "backend"
    assert all(cause.side == "balancer" for cause in CLOSE_CODES)
