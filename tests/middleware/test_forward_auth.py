from __future__ import annotations

import pytest

from tests.middleware.helpers import old_client, request, summary
from trio_wsb.http.headers import Field, Headers
from trio_wsb.middleware.exchange import Answer, Request
from trio_wsb.middleware.forward_auth import (
    Allowed,
    AuthTLSOptions,
    ForwardAuth,
    ForwardAuthOptions,
    Question,
    parse_auth_address,
)
from trio_wsb.routing.regex import Regex

ADDRESS = parse_auth_address("http://auth:8080/verify?k=1")


def ask(sent: Request, *, trust: bool = False, only: tuple[str, ...] = ()) -> Question:
    options = ForwardAuthOptions(ADDRESS, trust_forward_header=trust, auth_request_headers=only)
    return ForwardAuth(options).question(sent)


def test_the_question() -> None:
    question = ask(
        request("/p?q=1", [("Cookie", "c"), ("Authorization", "a")], method="PUT", host="chat.test:81")
    )
    assert (question.method, str(question.address)) == ("GET", "http://auth:8080/verify?k=1")
    assert list(question.headers) == [
        ("Host", "auth:8080"),
        ("Cookie", "c"),
        ("Authorization", "a"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Method", "PUT"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "chat.test:81"),
        ("X-Forwarded-Uri", "/p?q=1"),
    ]


def test_the_question_about_a_handshake_is_none_itself() -> None:
    fields = [
        ("Connection", "Upgrade, X-Hop"), ("Upgrade", "websocket"), ("X-Hop", "1"), ("Origin", "https://a"),
        ("Sec-WebSocket-Key", "k"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Extensions", "e"),
        ("Sec-WebSocket-Protocol", "chat, token"), ("TE", "trailers"), ("Keep-Alive", "1"), ("Expect", "100-continue"),
        ("Content-Length", "0"), ("Proxy-Authorization", "p"),
    ]  # fmt: skip
    names = [name for name, _ in ask(request("/ws", fields, upgrade=True, secure=True)).headers]
    assert names == [
        "Host", "Origin", "Sec-WebSocket-Protocol", "X-Forwarded-For", "X-Forwarded-Method", "X-Forwarded-Proto",
        "X-Forwarded-Host", "X-Forwarded-Uri",
    ]  # fmt: skip


def test_only_what_is_listed_is_asked() -> None:
    fields = [("Cookie", "c"), ("X-Other", "1"), ("X-Forwarded-Port", "443")]
    names = [name for name, _ in ask(request("/", fields), only=("cookie", "Host")).headers]
    assert names == [
        "Host", "Cookie", "X-Forwarded-For", "X-Forwarded-Method", "X-Forwarded-Proto", "X-Forwarded-Host",
        "X-Forwarded-Uri",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("trust", "expected"),
    [
        (False, ["192.0.2.1", "GET", "https", "example.com", "/"]),
        (True, ["10.0.0.1, 10.0.0.2, 192.0.2.1", "PUT", "http", "h", "/u"]),
    ],
)
def test_whose_word_counts(trust: bool, expected: list[str]) -> None:
    fields = [
        ("X-Forwarded-For", "10.0.0.1"), ("X-Forwarded-For", "10.0.0.2"), ("X-Forwarded-Method", "PUT"),
        ("X-Forwarded-Proto", "http"), ("X-Forwarded-Host", "h"), ("X-Forwarded-Uri", "/u"),
    ]  # fmt: skip
    headers = ask(request("/", fields, secure=True), trust=trust).headers
    assert [value for name, value in headers][1:] == expected


def test_what_is_not_known_is_not_said() -> None:
    names = [name for name, _ in ask(old_client()).headers]
    assert names == ["Host", "X-Forwarded-Method", "X-Forwarded-Proto", "X-Forwarded-Uri"]


def judge(
    options: ForwardAuthOptions,
    status: int,
    fields: list[Field],
    sent: list[Field] | None = None,
    body: bytes = b"",
) -> Allowed | Answer:
    return ForwardAuth(options).judge(request("/", sent or []), status, Headers(fields), body)


def allowed(options: ForwardAuthOptions, fields: list[Field], sent: list[Field] | None = None) -> Allowed:
    found = judge(options, 200, fields, sent)
    assert isinstance(found, Allowed)
    return found


def test_what_the_server_says_replaces_what_the_client_said() -> None:
    options = ForwardAuthOptions(ADDRESS, auth_response_headers=("X-User", "X-Role"))
    sent = [("x-user", "mallory"), ("X-ROLE", "root"), ("X-Kept", "1")]
    answer = [("X-USER", "bob"), ("X-User", "bob2"), ("X-Secret", "s")]
    assert list(allowed(options, answer, sent).request.headers)[1:] == [
        ("X-Kept", "1"), ("X-USER", "bob"), ("X-User", "bob2"),
    ]  # fmt: skip


def test_by_a_pattern_too() -> None:
    options = ForwardAuthOptions(ADDRESS, auth_response_headers_regex=Regex("^X-Auth-"))
    sent = [("x-auth-admin", "yes"), ("X-Kept", "1"), ("Not-X-Auth-A", "1")]
    answer = [("x-auth-user", "bob"), ("Date", "today")]
    assert list(allowed(options, answer, sent).request.headers)[1:] == [
        ("X-Kept", "1"), ("Not-X-Auth-A", "1"), ("x-auth-user", "bob"),
    ]  # fmt: skip


def test_no_answer_touches_the_framing_or_the_handshake() -> None:
    options = ForwardAuthOptions(
        ADDRESS, auth_response_headers=("Connection", "Host"), auth_response_headers_regex=Regex(".*")
    )
    sent = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "k"), ("X-Gone", "1")]
    answer = [
        ("Content-Length", "9"), ("Transfer-Encoding", "chunked"), ("Connection", "close"), ("Host", "evil"),
        ("Sec-WebSocket-Key", "x"), ("X-User", "bob"),
    ]  # fmt: skip
    assert list(allowed(options, answer, sent).request.headers)[1:] == [*sent[:3], ("X-User", "bob")]


def test_a_request_that_does_not_change_is_the_same() -> None:
    sent = request("/", [("X-A", "1")])
    found = ForwardAuth(ForwardAuthOptions(ADDRESS)).judge(sent, 204, Headers([("X-B", "2")]), b"")
    assert isinstance(found, Allowed)
    assert found.request is sent
    response = Headers([("Set-Cookie", "a=1")])
    assert found.on_response(response) is response


BACKEND = [("Set-Cookie", "a=backend; Path=/"), ("Set-Cookie", "b=backend"), ("ETag", "e")]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            [("set-cookie", " a=auth; HttpOnly"), ("Set-Cookie", "z=auth")],
            [BACKEND[1], BACKEND[2], ("Set-Cookie", " a=auth; HttpOnly")],
        ),
        ([("Set-Cookie", "z=auth")], [BACKEND[1], BACKEND[2]]),
        ([], BACKEND),
    ],
)
def test_cookies_for_the_client(answer: list[Field], expected: list[Field]) -> None:
    options = ForwardAuthOptions(ADDRESS, add_auth_cookies_to_response=("a",))
    assert list(allowed(options, answer).on_response(Headers(BACKEND.copy()))) == expected


@pytest.mark.parametrize("status", [300, 302, 401, 403, 404, 500, 503])
def test_a_refusal_is_the_answer(status: int) -> None:
    fields = [
        ("WWW-Authenticate", "Bearer"), ("Set-Cookie", "a=1"), ("Content-Length", "99"), ("Connection", "X-Hop"),
        ("X-Hop", "1"), ("Keep-Alive", "x"), ("Transfer-Encoding", "chunked"), ("Upgrade", "h2c"),
    ]  # fmt: skip
    answer = judge(ForwardAuthOptions(ADDRESS), status, fields, body=b"no")
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (status, b"no")
    assert answer.headers == (("WWW-Authenticate", "Bearer"), ("Set-Cookie", "a=1"))


@pytest.mark.parametrize("status", [100, 101, 199])
def test_no_upgrade_and_no_interim_answer_passes(status: int) -> None:
    answer = judge(ForwardAuthOptions(ADDRESS), status, [])
    assert isinstance(answer, Answer)
    assert answer.status == 500


@pytest.mark.parametrize(
    ("sent", "preserve", "expected"),
    [
        ("/login?x=1", False, "http://auth:8080/login?x=1"),
        ("login", False, "http://auth:8080/login"),
        ("https://login.test/", False, "https://login.test/"),
        ("//login.test/", False, "http://login.test/"),
        ("/login?x=1", True, "/login?x=1"),
    ],
)
def test_where_a_redirect_leads(sent: str, preserve: bool, expected: str) -> None:
    options = ForwardAuthOptions(ADDRESS, preserve_location_header=preserve)
    answer = judge(options, 302, [("Location", sent)])
    assert isinstance(answer, Answer)
    assert answer.headers == (("Location", expected),)


def test_a_location_that_leads_nowhere() -> None:
    answer = judge(ForwardAuthOptions(ADDRESS), 302, [("Location", "http://[::1")])
    assert isinstance(answer, Answer)
    assert answer.status == 500
    assert ForwardAuth(ForwardAuthOptions(ADDRESS)).failure().status == 500


@pytest.mark.parametrize(
    ("text", "expected", "authority"),
    [
        ("http://auth", "http://auth/", "auth"),
        ("https://auth:443/v", "https://auth/v", "auth"),
        ("http://[::1]:81/?a=b", "http://[::1]:81/?a=b", "[::1]:81"),
        ("HTTP://Auth/", "http://auth/", "auth"),
    ],
)
def test_addresses(text: str, expected: str, authority: str) -> None:
    address = parse_auth_address(text)
    assert (str(address), address.authority) == (expected, authority)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a URL with http"),
        ("auth:8080", "is not a URL with http"),
        ("ftp://auth", "is not a URL with http"),
        ("http://a b/", "is not a URL with http"),
        ("http://auth:99999", "is not a URL;"),
        ("http://auth:0", "has a bad or no host"),
        ("http:///x", "has a bad or no host"),
        ("http://[::1", "is not a URL;"),
        ("http://me:secret@auth", "has a user name or password"),
        ("http://auth/#x", "has a fragment"),
    ],
)
def test_what_is_no_address(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        parse_auth_address(text)
    assert "secret" not in str(caught.value)


def test_problems() -> None:
    assert summary(ForwardAuthOptions(ADDRESS).problems()) == []
    options = ForwardAuthOptions(
        ADDRESS,
        auth_response_headers=("X-User", "X User", "Upgrade"),
        add_auth_cookies_to_response=("a=b",),
        tls=AuthTLSOptions(cert="/c.pem"),
    )
    assert summary(options.problems()) == [
        (("auth_response_headers", 1), "error"),
        (("auth_response_headers", 2), "warning"),
        (("add_auth_cookies_to_response", 0), "error"),
        (("tls",), "error"),
    ]
    assert summary(AuthTLSOptions(key="/k.pem").problems()) == [((), "error")]
