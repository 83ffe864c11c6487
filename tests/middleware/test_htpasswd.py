from __future__ import annotations

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_wsb.middleware.htpasswd import MAX_PASSWORD, by_name, md5_crypt, parse_user, parse_users

SHA = "{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M="
"""Of "test"."""


@pytest.mark.parametrize(
    ("password", "salt", "magic", "expected"),
    [
        # Made with `openssl passwd -apr1 -salt SALT PASSWORD` and `openssl passwd -1 -salt SALT PASSWORD`.
        ("myPassword", "H6uskkkW", "$apr1$", "$apr1$H6uskkkW$Z2Frz4OHdts4uSFd5XSdM1"),
        ("", "abc", "$apr1$", "$apr1$abc$BfqKdn9xFDWJPa3kcp/PH0"),
        ("a", "x", "$apr1$", "$apr1$x$16j9.5e7KiXmuYFAYpPJM/"),
        ("0123456789abcdef", "saltsalt", "$apr1$", "$apr1$saltsalt$noZiBycUL1t9WTQEO7/nr1"),
        ("0123456789abcdefg" * 3, "saltsalt", "$apr1$", "$apr1$saltsalt$juhCmWQ5rQwFC17igHDld0"),
        ("grün", "saltsalt", "$1$", "$1$saltsalt$OpmScDKLUQHgsygVC5oAZ."),
    ],
)
def test_md5(password: str, salt: str, magic: str, expected: str) -> None:
    assert md5_crypt(password.encode(), salt, magic) == expected
    assert parse_user(f"u:{expected}").verify(password.encode())
    assert not parse_user(f"u:{expected}").verify(password.encode() + b"x")


def test_sha1() -> None:
    assert parse_user(f"bob:{SHA}").verify(b"test")
    assert not parse_user(f"bob:{SHA}").verify(b"Test")
    assert not parse_user(f"bob:{SHA}").verify(b"")


@pytest.mark.parametrize("prefix", [b"2a", b"2b", b"2x", b"2y"])
def test_bcrypt(prefix: bytes) -> None:
    secret = b"$" + prefix + bcrypt.hashpw(b"test", bcrypt.gensalt(4))[3:]
    user = parse_user(f"bob:{secret.decode()}")
    assert user.kind == "bcrypt"
    assert user.verify(b"test")
    assert not user.verify(b"tess")


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=90))
def test_any_password_is_right_or_wrong(password: bytes) -> None:
    right = parse_user("u:" + bcrypt.hashpw(password[:72], bcrypt.gensalt(4)).decode())
    assert right.verify(password)
    assert right.verify(password + b"x") is (len(password) >= 72)


def test_a_very_long_password_is_wrong() -> None:
    password = b"x" * (MAX_PASSWORD + 1)
    assert not parse_user(f"u:{md5_crypt(password, 'salt')}").verify(password)
    assert parse_user(f"u:{md5_crypt(password[1:], 'salt')}").verify(password[1:])


def test_a_user_is_shown_without_the_hash() -> None:
    assert "qUqP5" not in repr(parse_user(f"bob:{SHA}"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bob", "has no colon"),
        (f":{SHA}", "has no name"),
        (f"b\tob:{SHA}", "has no name"),
        ("bob:secret", "has no hash after the colon"),
        ("bob:", "has no hash after the colon"),
        ("bob:{SHA}abc", "has no hash after the colon"),
        ("bob:$2y$05$short", "has no hash after the colon"),
        ("bob:$2y$31$" + "a" * 53, "has a bcrypt cost that is out of range"),
        ("bob:$2y$03$" + "a" * 53, "has a bcrypt cost that is out of range"),
        ("bob:$$apr1$$H6uskkkW$$Z2Frz4OHdts4uSFd5XSdM1", "has \\$\\$, which is for Docker labels"),
        ("bob:$6$salt$hash", "has a kind of hash that is not supported"),
        (f"bob:{SHA}:more", "has no hash after the colon"),
    ],
)
def test_what_is_no_user(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        parse_user(text)
    assert "secret" not in str(caught.value)


def test_a_file() -> None:
    users, faults = parse_users(f"# people\n\nbob:{SHA}\n  ann:{SHA}  \nbad\n:x\n")
    assert [user.name for user in users] == ["bob", "ann"]
    assert [line for line, _ in faults] == [5, 6]


def test_the_later_of_two_users_counts() -> None:
    first, second, third = (
        parse_user(line) for line in (f"bob:{SHA}", f"ann:{SHA}", "bob:$1$salt$" + "." * 22)
    )
    assert by_name([first, second], [third]) == {"bob": third, "ann": second}
