from __future__ import annotations

import base64

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.middleware.helpers import request, summary
from trio_wsb.http.headers import Field
from trio_wsb.middleware.basic_auth import (
    BasicAuth,
    BasicAuthOptions,
    CredentialCache,
    Credentials,
)
from trio_wsb.middleware.htpasswd import User, by_name, parse_user

BOB = parse_user("bob:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=")
ANN = parse_user("grün:" + bcrypt.hashpw("blé".encode(), bcrypt.gensalt(4)).decode())
SALT = bytes(32)


def auth(options: BasicAuthOptions | None = None, *, users: tuple[User, ...] = (BOB, ANN)) -> BasicAuth:
    return BasicAuth(options or BasicAuthOptions(), by_name(users), CredentialCache(SALT))


def authorization(user: str, password: str, scheme: str = "Basic") -> Field:
    return "Authorization", f"{scheme} {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


@pytest.mark.parametrize(
    ("user", "password", "right"),
    [
        ("bob", "test", True),
        ("bob", "Test", False),
        ("Bob", "test", False),
        ("grün", "blé", True),
        ("grün", "ble", False),
        ("eve", "test", False),
        ("", "", False),
    ],
)
def test_passwords(user: str, password: str, right: bool) -> None:
    steps = auth()
    credentials = steps.credentials(request("/", [authorization(user, password)]))
    assert credentials == Credentials(user.encode(), password.encode())
    assert steps.verify(credentials) is right


def test_nobody_passes_without_users() -> None:
    steps = auth(users=())
    assert not steps.verify(Credentials(b"bob", b"test"))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Basic",
        "Basic ",
        "Bearer Ym9iOnRlc3Q=",
        "Basic Ym9iOnRlc3Q",
        "Basic Ym9i",
        "Basic Ym9iOnRlc3Q=\xe9",
        "Basic !!!!",
        "Ym9iOnRlc3Q=",
    ],
)
def test_what_is_not_understood(value: str) -> None:
    assert auth().credentials(request("/", [("Authorization", value)])) is None


def test_the_scheme_has_no_case_and_comes_once() -> None:
    field = authorization("bob", "a:b", "bASIC")
    assert auth().credentials(request("/", [field])) == Credentials(b"bob", b"a:b")
    assert auth().credentials(request("/", [field, field])) is None
    assert auth().credentials(request()) is None


def test_a_verified_password_is_remembered_for_a_minute() -> None:
    steps, credentials = auth(), Credentials(b"bob", b"test")
    assert not steps.remembered(credentials, 0.0)
    steps.remember(credentials, 0.0)
    assert steps.remembered(credentials, 59.9)
    assert not steps.remembered(Credentials(b"bob", b"tesu"), 1.0)
    assert not steps.remembered(Credentials(b"bobt", b"est"), 1.0)
    assert not steps.remembered(credentials, 60.0)


def test_who_is_no_user_any_more_is_not_remembered() -> None:
    cache, credentials = CredentialCache(SALT), Credentials(b"bob", b"test")
    before = BasicAuth(BasicAuthOptions(), by_name([BOB]), cache)
    before.remember(credentials, 0.0)
    assert before.remembered(credentials, 1.0)
    changed = parse_user("bob:{SHA}" + base64.b64encode(bytes(20)).decode())
    assert not BasicAuth(BasicAuthOptions(), by_name([changed]), cache).remembered(credentials, 1.0)
    gone = BasicAuth(BasicAuthOptions(), {}, cache)
    assert not gone.remembered(credentials, 1.0)
    gone.remember(credentials, 1.0)
    assert len(cache) == 1


def test_the_cache_is_bounded_and_has_no_password_in_it() -> None:
    cache = CredentialCache(SALT, limit=3)
    for number in range(5):
        cache.remember(Credentials(b"bob", b"password%d" % number), "secret", float(number))
    assert len(cache) == 3
    known = [cache.knows(Credentials(b"bob", b"password%d" % number), "secret", 5.0) for number in range(5)]
    assert known == [False, False, True, True, True]
    assert not any(b"password" in digest for digest in cache._known)


def test_remembering_again_prolongs() -> None:
    cache, credentials = CredentialCache(SALT, limit=2), Credentials(b"bob", b"x")
    cache.remember(credentials, "s", 0.0)
    cache.remember(Credentials(b"ann", b"x"), "s", 1.0)
    cache.remember(credentials, "s", 50.0)
    cache.remember(Credentials(b"eve", b"x"), "s", 51.0)
    assert cache.knows(credentials, "s", 100.0)
    assert not cache.knows(Credentials(b"ann", b"x"), "s", 52.0)


def test_another_salt_knows_nothing() -> None:
    credentials = Credentials(b"bob", b"x")
    assert CredentialCache(SALT)._digest(credentials, "s") != CredentialCache(b"1" * 32)._digest(
        credentials, "s"
    )


@settings(deadline=None)
@given(st.tuples(st.binary(), st.binary(), st.text()), st.tuples(st.binary(), st.binary(), st.text()))
def test_only_the_same_is_the_same(a: tuple[bytes, bytes, str], b: tuple[bytes, bytes, str]) -> None:
    cache = CredentialCache(SALT)
    cache.remember(Credentials(a[0], a[1]), a[2], 0.0)
    assert cache.knows(Credentials(b[0], b[1]), b[2], 1.0) is (a == b)


def test_what_the_backend_sees() -> None:
    fields = [authorization("grün", "blé"), ("x-user", "mallory"), ("X-USER", "root"), ("X-Other", "1")]
    sent = request("/", fields)
    credentials = Credentials("grün".encode(), b"")
    assert auth().accept(sent, credentials) == sent
    plain = auth(BasicAuthOptions(remove_header=True)).accept(sent, credentials)
    assert [name for name, _ in plain.headers] == ["Host", "x-user", "X-USER", "X-Other"]
    named = auth(BasicAuthOptions(header_field="X-User", remove_header=True)).accept(sent, credentials)
    assert list(named.headers)[1:] == [("X-Other", "1"), ("X-User", "grün".encode().decode("latin-1"))]


@pytest.mark.parametrize(
    ("realm", "challenge"), [("chat", 'Basic realm="chat"'), ('my "own\\', 'Basic realm="my \\"own\\\\"')]
)
def test_the_refusal(realm: str, challenge: str) -> None:
    answer = auth(BasicAuthOptions(realm=realm)).refusal()
    assert (answer.status, answer.body) == (401, b"401 Unauthorized\n")
    assert dict(answer.headers)["WWW-Authenticate"] == challenge


def test_secrets_are_not_shown() -> None:
    assert "test" not in repr(Credentials(b"bob", b"test"))


def test_the_decoy_is_the_slowest_hash() -> None:
    slower = parse_user("eve:" + bcrypt.hashpw(b"x", bcrypt.gensalt(5)).decode())
    assert auth(users=(BOB, ANN, slower, BOB))._decoy == slower
    assert auth(users=(BOB,))._decoy == BOB


def test_problems() -> None:
    assert summary(BasicAuthOptions().problems()) == [(("users",), "error")]
    assert summary(BasicAuthOptions(users=(BOB,)).problems()) == []
    options = BasicAuthOptions(users_file="/etc/users", header_field="Connection")
    assert summary(options.problems()) == [(("header_field",), "error")]
