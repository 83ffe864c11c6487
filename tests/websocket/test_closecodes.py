from __future__ import annotations

import pytest
from websockets.frames import EXTERNAL_CLOSE_CODES, CloseCode

from trio_wsb.websocket import closecodes


def test_the_same_codes_as_the_websockets_library() -> None:
    names = {name: value for name, value in vars(closecodes).items() if isinstance(value, int)}
    ours = {"INVALID_PAYLOAD": "INVALID_DATA", "NO_STATUS_RECEIVED": "NO_STATUS_RCVD"}
    assert {ours.get(name, name): value for name, value in names.items()} == {
        code.name: code.value for code in CloseCode
    }
    assert set(closecodes.CLOSE_CODE_NAMES) == set(CloseCode)


def test_the_codes_that_may_be_sent() -> None:
    sendable = {code for code in range(70000) if closecodes.is_valid_close_code(code)}
    assert sendable == {*EXTERNAL_CLOSE_CODES, *range(3000, 5000)}


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (1000, "normal closure"),
        (3000, "registered"),
        (4999, "private use"),
        (2000, "unassigned"),
        (0, "unassigned"),
    ],
)
def test_every_code_has_a_name(code: int, name: str) -> None:
    assert closecodes.close_code_name(code) == name
