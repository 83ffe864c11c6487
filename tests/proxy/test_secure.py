from __future__ import annotations

import ssl

import pytest
from attrs import evolve

from trio_wsb.errors import BadRequest
from trio_wsb.proxy.secure import (
    Handshakes,
    Secured,
    Terms,
    TLSEntry,
    check_direction,
    may_see_pages,
)
from trio_wsb.routing.hosts import HostTable

DEFAULT, MTLS, STRICT = Terms("default", 1), Terms("mtls", 2, "ca"), Terms("strict", 3)

A, WILD, SHOWN = b"a", b"wild", b"default"

CONTEXTS = {
    (terms, key): ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for terms in (DEFAULT, MTLS, STRICT)
    for key in (A, WILD, SHOWN)
}

ENTRY = TLSEntry(
    terms=HostTable([("b.test", MTLS), ("*.w.test", MTLS), ("s.test", STRICT), ("a.w.test", DEFAULT)]),
    fallback=DEFAULT,
    certificates=HostTable([("a.test", A), ("*.w.test", WILD), ("192.0.2.1", A)]),
    default=SHOWN,
    contexts=CONTEXTS,
    strict=frozenset({STRICT}),
)


@pytest.mark.parametrize(
    ("name", "local", "terms", "key"),
    [
        ("a.test", "", DEFAULT, A),
        ("b.test", "", MTLS, SHOWN),
        ("x.w.test", "", MTLS, WILD),
        ("a.w.test", "", DEFAULT, WILD),
        ("x.y.w.test", "", DEFAULT, SHOWN),
        ("", "192.0.2.1", DEFAULT, A),
        ("", "192.0.2.2", DEFAULT, SHOWN),
        ("unknown", "192.0.2.1", DEFAULT, SHOWN),
    ],
)
def test_what_a_name_is_served_with(name: str, local: str, terms: Terms, key: bytes) -> None:
    assert ENTRY.choose(name, local) == (terms, CONTEXTS[terms, key])


def test_strict_terms_refuse_names_that_no_certificate_has() -> None:
    assert ENTRY.choose("s.test") == (STRICT, None)


@pytest.mark.parametrize(
    ("terms", "host", "passes"),
    [
        (DEFAULT, "a.test", True),
        (DEFAULT, "unknown", True),
        (DEFAULT, "", True),
        (DEFAULT, "b.test", False),
        (DEFAULT, "x.w.test", False),
        (MTLS, "b.test", True),
        (MTLS, "x.w.test", True),
        (MTLS, "a.test", False),
        (Terms("mtls", 2, "another ca"), "b.test", False),
    ],
)
def test_a_request_comes_on_a_connection_of_its_hosts_terms(terms: Terms, host: str, passes: bool) -> None:
    if passes:
        check_direction(ENTRY, Secured(terms), host)
        return
    with pytest.raises(BadRequest) as raised:
        check_direction(ENTRY, Secured(terms), host)
    assert raised.value.status == 421


def test_pages_are_behind_what_the_entry_point_says() -> None:
    mutual = evolve(ENTRY, fallback=MTLS, guards_pages=True)
    found = [
        may_see_pages(entry, secured)
        for entry in (None, ENTRY, evolve(ENTRY, guards_pages=True), mutual)
        for secured in (None, Secured(DEFAULT), Secured(MTLS))
    ]
    assert found == [True] * 6 + [False, True, False] + [False, False, True]


def test_a_router_may_want_more_than_the_host() -> None:
    check_direction(ENTRY, Secured(MTLS), "b.test", "ca")
    with pytest.raises(BadRequest):
        check_direction(ENTRY, Secured(DEFAULT), "a.test", "ca")


def test_where_tls_is_no_longer_spoken_nothing_is_asked_for_over_it() -> None:
    with pytest.raises(BadRequest):
        check_direction(None, Secured(DEFAULT), "a.test")


def test_places_follow_the_configuration() -> None:
    handshakes = Handshakes()
    places = handshakes.places("web", 2)
    assert places.total_tokens == 2
    assert handshakes.places("web", 5) is places
    assert places.total_tokens == 5
    handshakes.places("web", 0)
    assert places.total_tokens == float("inf")
