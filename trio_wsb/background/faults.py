"""Why a request of ours to a backend failed, in a few words: the same for the same cause, nothing the backend sent."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator

import httpx
import trio

from trio_wsb.net.sockets import OWN_SHORTAGES


def describe_fault(error: BaseException, timeout: float) -> str:
    """Return why a request failed.

    Args:
      error: what was raised, or a group of it, of which the first counts.
      timeout: the request's deadline in seconds.

    """
    match next(leaves(error)):
        case trio.TooSlowError():
            return f"no complete answer within {timeout:g} s"
        case httpx.ConnectError() as found:
            return f"cannot connect: {connect_reason(found)}"
        case httpx.ReadError() | httpx.WriteError():
            return "the connection was lost"
        case httpx.RemoteProtocolError():
            return "no valid HTTP/1.1 answer"
        case found:
            return f"the request failed ({type(found).__name__})"


def connect_reason(error: BaseException) -> str:
    """Return why there is no connection."""
    # httpx keeps the text of one error only; the causes tell whether it was refused, unresolved or not trusted.
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return f"the certificate is not trusted ({cause.verify_message.partition(',')[0]})"
            case ssl.SSLError():
                # OpenSSL's name of it; an error that OpenSSL did not make lacks the attribute.
                return f"TLS failed ({getattr(cause, 'reason', None) or 'unknown reason'})"
            case OSError(errno=int(number), strerror=str(text)):
                # Trio puts the address into the text. Resolver errors have negative numbers of their own.
                return os.strerror(number) if number > 0 else text
    return "no connection"


def own_shortage(error: BaseException) -> str | None:
    """Return what this host is out of, where a request failed for that; None where the backend has a part in it."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in OWN_SHORTAGES:
            return os.strerror(cause.errno).lower()
    return None


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group and of the groups in it, or the one error that is none."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaves(part)
    else:
        yield error


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    left = [error]
    while left:
        cause = left.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            left += cause.exceptions
        left += [link for link in (cause.__cause__, cause.__context__) if link is not None]
