"""The part of the configuration that says what a session may do and for how long."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from trio_wsb.config.checks import AT_LEAST_0
from trio_wsb.config.options import option
from trio_wsb.config.problems import Finding, KeyPath
from trio_wsb.middleware.options import Bound
from trio_wsb.units import Duration, Percent, Rate, Size

SESSION_TIMEOUT = Bound(
    "0, or at least 1s",
    lambda value: value == 0 or value >= 1,
    "is shorter than a second",
    'write 0 for no limit, or a duration such as "10m"',
)
"""A limit that is looked at once a second."""

ANSWER_TIMEOUT = Bound(
    "at least 1s",
    lambda value: value >= 1,
    "is shorter than a second",
    'write a duration such as "20s"',
)
"""A limit that is looked at once a second and is always there."""

MESSAGE_RATE = Bound(
    "0, or 1/h to 1000000/s",
    lambda value: value == 0 or 1 / 3600 <= value <= 1_000_000,
    "is no rate that messages can come at",
    'write 0 for no limit, or a rate such as "100/s"',
)

BYTE_RATE = Bound(
    "0, or at least 1KiB",
    lambda value: value == 0 or value >= 1024,
    "is less than 1 KiB a second",
    'write 0 for no limit, or the bytes of a second such as "64KiB"',
)


@frozen
class Session:
    """Limits of a session."""

    idle_timeout: Duration = option(
        "A session in which no message has passed for so long, in neither direction, is closed with 1001. Pings and pongs are no "
        "messages, whoever sends them. 0 is no limit.",
        Duration(0.0),
        reload="new sessions",
        check=SESSION_TIMEOUT,
    )
    max_lifetime: Duration = option(
        "How old a session may become before it is closed with 1001. 0 is no limit.",
        Duration(0.0),
        reload="new sessions",
        check=SESSION_TIMEOUT,
    )
    lifetime_jitter: Percent = option(
        "By how much of `maxLifetime` sessions end before it, each by another part, so that those that began together do not "
        "come back together.",
        Percent(0.1),
        reload="new sessions",
    )
    ping_interval: Duration = option(
        "A client or backend that has sent nothing for so long gets a ping of ours, unless an end-to-end ping waits for its answer. "
        "The answer goes no further. 0 is no pings.",
        Duration(0.0),
        reload="new sessions",
        check=SESSION_TIMEOUT,
    )
    pong_timeout: Duration = option(
        "How long a side may send nothing after a ping, ours or the other side's, before it counts as lost; any byte is a sign of "
        "life. Without `pingInterval` nobody looks.",
        Duration(20.0),
        reload="new sessions",
        check=ANSWER_TIMEOUT,
    )
    max_message_bytes: Size = option(
        "Payload that a message may have, all its frames together, compressed as it is; 1009 to the side that sends a longer one. "
        "Both directions. 0 is no limit.",
        Size(0),
        reload="new sessions",
    )
    message_rate: Rate = option(
        "Messages that a client may send, pings and pongs included. What comes faster waits: we read no more, so that TCP holds "
        "the client back. 0 is no limit.",
        Rate(0.0),
        reload="new sessions",
        check=MESSAGE_RATE,
    )
    message_burst: int = option(
        "Messages that may come at once after a pause; 0 is as many as a second brings.",
        0,
        reload="new sessions",
        check=AT_LEAST_0,
    )
    byte_rate: Size = option(
        "Bytes that a client may send in a second, held back like messages. 0 is no limit.",
        Size(0),
        reload="new sessions",
        check=BYTE_RATE,
    )
    byte_burst: Size = option(
        "Bytes that may come at once after a pause; 0 is as many as a second brings.",
        Size(0),
        reload="new sessions",
    )
    write_timeout: Duration = option(
        "How long a peer may accept nothing while bytes wait for it; the session ends after it. 0 is no limit.",
        Duration(10.0),
        reload="new sessions",
    )


def session_findings(session: Session, path: KeyPath) -> Iterator[Finding]:
    """Yield what has no effect in `session`, which stands at `path`."""
    for burst, key, rate, needed in (
        (session.message_burst, "messageBurst", session.message_rate, "messageRate"),
        (session.byte_burst, "byteBurst", session.byte_rate, "byteRate"),
    ):
        if burst and not rate:
            yield Finding((*path, key), f"has no effect without {needed}", f"write {needed} too", "warning")
