from __future__ import annotations

import pytest

from tests.middleware.helpers import request, summary
from trio_wsb.http.headers import Field, Headers
from trio_wsb.middleware.exchange import Answer, Request
from trio_wsb.middleware.header_options import HeadersOptions
from trio_wsb.middleware.headers import HeaderEditor
from trio_wsb.routing.regex import Regex


def changed(options: HeadersOptions, fields: list[Field]) -> Request:
    after = HeaderEditor(options).on_request(request("/", fields))
    assert isinstance(after, Request)
    return after


def answered(options: HeadersOptions, sent: Request) -> Answer | None:
    after = HeaderEditor(options).on_request(sent)
    return after if isinstance(after, Answer) else None


def responded(options: HeadersOptions, fields: list[Field], sent: Request | None = None) -> list[Field]:
    return list(HeaderEditor(options).on_response(sent or request(), Headers(fields)))


def test_request_fields_are_set_and_removed() -> None:
    options = HeadersOptions(custom_request_headers={"X-Set": "1", "X-Gone": "", "X-New": "2"})
    after = changed(options, [("x-set", "client"), ("X-GONE", "x"), ("X-Set", "again"), ("X-Kept", "k")])
    assert list(after.headers) == [
        ("Host", "example.com"), ("X-Kept", "k"), ("X-Set", "1"), ("X-New", "2"),
    ]  # fmt: skip
    assert after.withheld == frozenset()


def test_a_forwarding_field_that_is_removed_is_not_added_later() -> None:
    options = HeadersOptions(custom_request_headers={"X-Forwarded-For": "", "x-real-ip": "", "X-Gone": ""})
    assert changed(options, []).withheld == {"x-forwarded-for", "x-real-ip"}


def test_host_is_replaced_and_never_removed() -> None:
    after = changed(HeadersOptions(custom_request_headers={"Host": "other"}), [])
    assert list(after.headers) == [("Host", "other")]
    assert (after.head.authority, after.head.host) == ("example.com", "example.com")
    assert list(changed(HeadersOptions(custom_request_headers={"Host": ""}), []).headers) == [
        ("Host", "example.com")
    ]


def test_the_connection_is_nobodys_to_change() -> None:
    options = HeadersOptions(
        custom_request_headers={
            "X-Forwarded-Proto": "https",
            "Connection": "upgrade",
            "Sec-WebSocket-Key": "x",
        },
        custom_response_headers={"Upgrade": "", "Content-Length": "7", "X-A": "1"},
    )
    editor = HeaderEditor(options)
    assert editor.ignored == ("Connection", "Sec-WebSocket-Key", "Upgrade", "Content-Length")
    handshake = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "k")]
    after = changed(options, handshake)
    assert list(after.headers)[1:] == [*handshake, ("X-Forwarded-Proto", "https")]
    assert responded(options, [("Upgrade", "websocket")]) == [("Upgrade", "websocket"), ("X-A", "1")]


def test_response_fields_are_set_and_removed() -> None:
    options = HeadersOptions(custom_response_headers={"Server": "", "X-Out": "2"})
    assert responded(options, [("server", "x"), ("X-Out", "1"), ("X-Out", "0"), ("ETag", "e")]) == [
        ("ETag", "e"), ("X-Out", "2"),
    ]  # fmt: skip


def test_fields_for_the_safety_of_browsers() -> None:
    options = HeadersOptions(
        frame_deny=True,
        content_type_nosniff=True,
        browser_xss_filter=True,
        referrer_policy="no-referrer",
        permissions_policy="camera=()",
        content_security_policy="default-src 'self'",
        content_security_policy_report_only="img-src *",
    )
    assert responded(options, [("x-frame-options", "ALLOW")]) == [
        ("X-Frame-Options", "DENY"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-XSS-Protection", "1; mode=block"),
        ("Content-Security-Policy", "default-src 'self'"),
        ("Content-Security-Policy-Report-Only", "img-src *"),
        ("Referrer-Policy", "no-referrer"),
        ("Permissions-Policy", "camera=()"),
    ]


def test_own_values_come_first_and_custom_fields_last() -> None:
    options = HeadersOptions(
        frame_deny=True,
        browser_xss_filter=True,
        custom_frame_options_value="SAMEORIGIN",
        custom_browser_xss_value="0",
    )
    assert responded(options, []) == [("X-Frame-Options", "SAMEORIGIN"), ("X-XSS-Protection", "0")]
    options = HeadersOptions(frame_deny=True, custom_response_headers={"X-Frame-Options": "custom"})
    assert responded(options, []) == [("X-Frame-Options", "custom")]


@pytest.mark.parametrize(
    ("options", "secure", "fields", "expected"),
    [
        (HeadersOptions(sts_seconds=31), True, [], "max-age=31"),
        (HeadersOptions(sts_seconds=31), False, [], None),
        (HeadersOptions(sts_seconds=31), False, [("X-Forwarded-Proto", "https")], None),
        (HeadersOptions(sts_seconds=31, force_sts_header=True), False, [], "max-age=31"),
        (
            HeadersOptions(sts_seconds=31, ssl_proxy_headers={"X-P": "https"}),
            False,
            [("X-P", "https")],
            "max-age=31",
        ),
        (HeadersOptions(sts_seconds=31, ssl_proxy_headers={"X-P": "https"}), False, [("X-P", "http")], None),
        (HeadersOptions(sts_seconds=31, is_development=True), True, [], None),
        (
            HeadersOptions(sts_seconds=5, sts_include_subdomains=True, sts_preload=True),
            True,
            [],
            "max-age=5; includeSubDomains; preload",
        ),
    ],
)
def test_strict_transport_security(
    options: HeadersOptions, secure: bool, fields: list[Field], expected: str | None
) -> None:
    found = dict(responded(options, [], request("/", fields, secure=secure)))
    assert found.get("Strict-Transport-Security") == expected


def test_pins_are_for_https_alone() -> None:
    options = HeadersOptions(public_key='pin-sha256="x"', sts_seconds=1, force_sts_header=True)
    assert [name for name, _ in responded(options, [], request(secure=True))] == [
        "Strict-Transport-Security", "Public-Key-Pins",
    ]  # fmt: skip
    assert [name for name, _ in responded(options, [])] == ["Strict-Transport-Security"]


@pytest.mark.parametrize(
    ("host", "fields", "passes"),
    [
        ("good.test", [], True),
        ("GOOD.test", [], True),
        ("bad.test", [], False),
        ("good.test:8080", [], False),
        ("bad.test", [("X-Host", "good.test")], True),
        ("good.test", [("X-Host", "bad.test")], False),
        ("good.test", [("X-Host", "")], True),
    ],
)
def test_allowed_hosts(host: str, fields: list[Field], passes: bool) -> None:
    options = HeadersOptions(allowed_hosts=("Good.test",), hosts_proxy_headers=("X-Host",))
    answer = answered(options, request("/", fields, host=host))
    assert (answer is None) is passes
    if answer is not None:
        assert (answer.status, answer.body) == (500, b"Bad Host\n")


def test_any_host_while_developing() -> None:
    assert answered(HeadersOptions(allowed_hosts=("good.test",), is_development=True), request()) is None


CORS_OPTIONS = HeadersOptions(
    access_control_allow_methods=("GET", "PUT"),
    access_control_allow_headers=("X-A", "X-B"),
    access_control_allow_origin_list=("https://foo.org",),
    access_control_allow_origin_list_regex=(Regex(r"^https://.*\.re$"),),
    access_control_expose_headers=("X-C", "X-D"),
    access_control_max_age=100,
    add_vary_header=True,
)


def preflight(origin: str = "https://foo.org", method: str = "PUT", *more: Field) -> Request:
    return request(
        "/", [("Origin", origin), ("Access-Control-Request-Method", method), *more], method="OPTIONS"
    )


def test_a_preflight_is_answered() -> None:
    answer = answered(CORS_OPTIONS, preflight())
    assert answer is not None
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers == (
        ("Access-Control-Allow-Origin", "https://foo.org"),
        ("Access-Control-Expose-Headers", "X-C,X-D"),
        ("Access-Control-Allow-Headers", "X-A,X-B"),
        ("Access-Control-Allow-Methods", "GET,PUT"),
        ("Access-Control-Max-Age", "100"),
    )


def test_a_strangers_preflight_learns_that_it_may_not() -> None:
    answer = answered(CORS_OPTIONS, preflight("https://evil.net"))
    assert answer is not None
    assert "Access-Control-Allow-Origin" not in dict(answer.headers)


@pytest.mark.parametrize(
    "sent",
    [
        request("/", [("Origin", "https://foo.org")], method="OPTIONS"),
        request("/", [("Access-Control-Request-Method", "PUT")], method="OPTIONS"),
        request("/", [("Origin", "https://foo.org"), ("Access-Control-Request-Method", "PUT")]),
        request("/", [("Origin", "https://foo.org")], upgrade=True),
    ],
)
def test_other_requests_are_no_preflights(sent: Request) -> None:
    assert answered(CORS_OPTIONS, sent) is None
    assert answered(HeadersOptions(frame_deny=True), preflight()) is None


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://foo.org", "https://foo.org"),
        ("https://a.re", "https://a.re"),
        ("https://a.re.evil.net", None),
        ("https://FOO.org", None),
        ("", None),
    ],
)
def test_who_may_read_a_response(origin: str, expected: str | None) -> None:
    fields = [("Origin", origin)] if origin else []
    found = dict(responded(CORS_OPTIONS, [], request("/", fields)))
    assert found.get("Access-Control-Allow-Origin") == expected
    assert (found["Access-Control-Expose-Headers"], found["Vary"]) == ("X-C,X-D", "Origin")


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        (["Accept"], ["Accept,Origin"]),
        (["Accept", "Cookie"], ["Accept,Cookie,Origin"]),
        (["Origin"], ["Origin"]),
        (["accept, origin"], ["accept, origin"]),
        (["*"], ["*"]),
        ([], ["Origin"]),
    ],
)
def test_vary(vary: list[str], expected: list[str]) -> None:
    fields = responded(CORS_OPTIONS, [("Vary", each) for each in vary])
    assert [value for name, value in fields if name == "Vary"] == expected


def test_every_origin() -> None:
    options = HeadersOptions(access_control_allow_origin_list=("*",))
    assert responded(options, [("access-control-allow-origin", "x")]) == [
        ("Access-Control-Allow-Origin", "*")
    ]


def test_credentials_need_names_in_place_of_the_asterisk() -> None:
    options = HeadersOptions(
        access_control_allow_origin_list=("https://foo.org", "*"),
        access_control_allow_credentials=True,
        access_control_allow_headers=("*",),
        access_control_allow_methods=("*",),
    )
    answer = answered(
        options, preflight("https://q", "PATCH", ("Access-Control-Request-Headers", "x-q, x-r"))
    )
    assert answer is not None
    assert answer.headers == (
        ("Access-Control-Allow-Origin", "https://q"),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Allow-Headers", "x-q, x-r"),
        ("Access-Control-Allow-Methods", "PATCH"),
    )
    answer = answered(options, preflight())
    assert answer is not None
    assert "Access-Control-Allow-Headers" not in dict(answer.headers)
    assert responded(options, []) == [("Access-Control-Allow-Credentials", "true")]


def test_nothing_said_about_cors_leaves_the_backends_word() -> None:
    fields = [("Access-Control-Allow-Origin", "https://backend")]
    assert responded(HeadersOptions(), fields) == fields
    assert responded(HeadersOptions(add_vary_header=True), [("Vary", "Origin")]) == [("Vary", "Origin")]


def test_problems() -> None:
    assert summary(HeadersOptions().problems()) == [((), "warning")]
    assert summary(CORS_OPTIONS.problems()) == []
    options = HeadersOptions(
        custom_request_headers={"X Y": "1", "X-Z": "a\nb", "Connection": "upgrade", "x-a": "1", "X-A": "2"},
        ssl_proxy_headers={"Upgrade": "x"},
        access_control_allow_headers=("X-A, X-B",),
        access_control_allow_origin_list=("*", ""),
        access_control_allow_credentials=True,
        content_security_policy="script-src $NONCE",
        referrer_policy="a\r\nb",
    )
    assert summary(options.problems()) == [
        (("custom_request_headers", "X Y"), "error"),
        (("custom_request_headers", "X-Z"), "error"),
        (("custom_request_headers", "Connection"), "warning"),
        (("custom_request_headers", "X-A"), "error"),
        (("access_control_allow_headers", 0), "error"),
        (("access_control_allow_origin_list", 1), "error"),
        (("access_control_allow_origin_list", 0), "warning"),
        (("content_security_policy",), "warning"),
        (("referrer_policy",), "error"),
    ]


def test_options_with_the_same_patterns_are_the_same() -> None:
    def options() -> HeadersOptions:
        return HeadersOptions(access_control_allow_origin_list_regex=(Regex("^https://a$"),))

    assert options() == options()
    assert options() != HeadersOptions(access_control_allow_origin_list_regex=(Regex("^https://b$"),))
