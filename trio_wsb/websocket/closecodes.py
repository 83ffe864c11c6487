"""Close codes: RFC 6455 section 7.4.1 and the IANA registry "WebSocket Close Code Number"."""

from __future__ import annotations

from typing import Final

NORMAL_CLOSURE: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
UNSUPPORTED_DATA: Final = 1003
NO_STATUS_RECEIVED: Final = 1005
ABNORMAL_CLOSURE: Final = 1006
INVALID_PAYLOAD: Final = 1007
POLICY_VIOLATION: Final = 1008
MESSAGE_TOO_BIG: Final = 1009
MANDATORY_EXTENSION: Final = 1010
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012
TRY_AGAIN_LATER: Final = 1013
BAD_GATEWAY: Final = 1014
TLS_HANDSHAKE: Final = 1015

CLOSE_CODE_NAMES: Final[dict[int, str]] = {
    NORMAL_CLOSURE: "normal closure",
    GOING_AWAY: "going away",
    PROTOCOL_ERROR: "protocol error",
    UNSUPPORTED_DATA: "unsupported data",
    NO_STATUS_RECEIVED: "no status received",
    ABNORMAL_CLOSURE: "abnormal closure",
    INVALID_PAYLOAD: "invalid frame payload data",
    POLICY_VIOLATION: "policy violation",
    MESSAGE_TOO_BIG: "message too big",
    MANDATORY_EXTENSION: "mandatory extension",
    INTERNAL_ERROR: "internal error",
    SERVICE_RESTART: "service restart",
    TRY_AGAIN_LATER: "try again later",
    BAD_GATEWAY: "bad gateway",
    TLS_HANDSHAKE: "TLS handshake",
}
"""The registered codes; three of them (1005, 1006, 1015) only ever describe, and are never sent."""

_NEVER_SENT = frozenset({NO_STATUS_RECEIVED, ABNORMAL_CLOSURE, TLS_HANDSHAKE})


def is_valid_close_code(code: int) -> bool:
    """Whether `code` may stand in a Close frame.

    That is a registered code that is not reserved for describing, or one of the ranges for libraries
    (3000-3999) and applications (4000-4999); RFC 6455 section 7.4.2.
    """
    return 3000 <= code <= 4999 or (code in CLOSE_CODE_NAMES and code not in _NEVER_SENT)


def close_code_name(code: int) -> str:
    """Return what `code` is called, for people; a code without a name is named by its range."""
    name = CLOSE_CODE_NAMES.get(code)
    if name is None:
        name = (
            "registered" if 3000 <= code <= 3999 else "private use" if 4000 <= code <= 4999 else "unassigned"
        )
    return name
