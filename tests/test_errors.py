"""The words of errors: where it failed, and why."""

from __future__ import annotations

from trio_wsb.errors import BadRequest, DialError, Error, HTTPError


def test_a_dial_error_says_where_and_why() -> None:
    error = DialError("tls", "the certificate has expired")
    assert isinstance(error, Error)
    assert (error.stage, error.reason, str(error)) == (
        "tls",
        "the certificate has expired",
        "tls: the certificate has expired",
    )


def test_a_bad_request_is_answered_with_its_status() -> None:
    error = BadRequest(431, "the request head is too large")
    assert isinstance(error, HTTPError)
    assert (error.status, error.reason) == (431, "the request head is too large")
