"""Users and password hashes in the form of Apache's htpasswd: bcrypt, SHA-1 and MD5.

SHA-1 and MD5 are here because files with them exist; both are far too quick to resist guessing. Passwords are bytes: what
the user typed, in UTF-8.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable
from hmac import compare_digest
from typing import Final, Literal, TypeAlias

import bcrypt
from attrs import field, frozen

Kind: TypeAlias = Literal["bcrypt", "sha1", "md5"]

MAX_COST: Final = 16
"""Of bcrypt: each step doubles the time, and 16 takes some five seconds, which an attacker can make us spend."""

MAX_PASSWORD: Final = 1024
"""Bytes; a longer password is wrong without being looked at, for MD5 makes a thousand rounds over it."""

_BCRYPT: Final = re.compile(r"\$2[abxy]\$([0-9]{2})\$[./0-9A-Za-z]{53}")
_SHA: Final = re.compile(r"\{SHA\}([0-9A-Za-z+/]{27}=)")
_MD5: Final = re.compile(r"(\$apr1\$|\$1\$)([./0-9A-Za-z]{0,8})\$([./0-9A-Za-z]{22})")
_ALPHABET: Final = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_HINT: Final = "write a line of htpasswd: NAME:HASH, the hash made with `htpasswd -nB NAME`"


@frozen
class User:
    """A user and the hash of the password."""

    name: str
    secret: str = field(repr=False)
    kind: Kind

    def verify(self, password: bytes) -> bool:
        """Whether `password` is the user's; with bcrypt this takes 50 ms to seconds, without the interpreter lock."""
        if len(password) > MAX_PASSWORD:
            return False
        return _VERIFY[self.kind](password, self.secret)


def parse_user(text: str) -> User:
    """Return the user that a line of htpasswd describes.

    Raises:
      ValueError: it describes none; the message says what would be right and has nothing of the hash in it.

    """
    name, colon, secret = text.strip().partition(":")
    if not colon:
        raise ValueError(f"has no colon; {_HINT}")
    if not name or not name.isprintable():
        raise ValueError(f"has no name before the colon; {_HINT}")
    cost = _BCRYPT.fullmatch(secret)
    if cost is not None:
        if not 4 <= int(cost[1]) <= MAX_COST:
            raise ValueError(f"has a bcrypt cost that is out of range; 4 to {MAX_COST}, 12 is good")
        return User(name, secret, "bcrypt")
    if _SHA.fullmatch(secret):
        return User(name, secret, "sha1")
    if _MD5.fullmatch(secret):
        return User(name, secret, "md5")
    if "$$" in secret:
        raise ValueError("has $$, which is for Docker labels; in a file write each $ once")
    if secret.startswith(("$5$", "$6$", "$y$", "$argon2")):
        raise ValueError(f"has a kind of hash that is not supported; {_HINT}")
    raise ValueError(f"has no hash after the colon that is known here (bcrypt, SHA-1, MD5); {_HINT}")


def parse_users(text: str) -> tuple[list[User], list[tuple[int, str]]]:
    """Return the users of a file, and what is wrong with it as pairs of line number (from 1) and message.

    Empty lines and lines that begin with ``#`` are skipped.
    """
    users: list[User] = []
    faults: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            users.append(parse_user(line))
        except ValueError as error:
            faults.append((number, str(error)))
    return users, faults


def by_name(*groups: Iterable[User]) -> dict[str, User]:
    """Return users by name; of two with the same name the later one counts."""
    return {user.name: user for group in groups for user in group}


def _verify_bcrypt(password: bytes, secret: str) -> bool:
    # The algorithm itself sees no more than 72 bytes, and so did whoever made the hash.
    return bcrypt.checkpw(password[:72], secret.encode("ascii"))


def _verify_sha1(password: bytes, secret: str) -> bool:
    try:
        expected = base64.b64decode(secret.removeprefix("{SHA}"), validate=True)
    except binascii.Error:  # pragma: no cover - the pattern lets nothing through that has this fault
        return False
    return compare_digest(hashlib.sha1(password, usedforsecurity=False).digest(), expected)


def _verify_md5(password: bytes, secret: str) -> bool:
    match = _MD5.fullmatch(secret)
    assert match is not None, "parse_user has looked"
    magic, salt, _ = match.groups()
    return compare_digest(md5_crypt(password, salt, magic), secret)


def md5_crypt(password: bytes, salt: str, magic: str = "$apr1$") -> str:
    """Return the MD5-based hash of Poul-Henning Kamp (FreeBSD, 1994), of which Apache's differs by its `magic` alone.

    The order of steps has no reason beyond making a different function of MD5; it is reproduced, not designed.
    """
    salt_bytes = salt[:8].encode("ascii")
    inner = _md5(password, salt_bytes, password)
    data = password + magic.encode("ascii") + salt_bytes
    data += (inner * (len(password) // 16 + 1))[: len(password)]
    bits = len(password)
    while bits:
        data += b"\0" if bits & 1 else password[:1]
        bits >>= 1
    digest = _md5(data)
    for count in range(1000):
        parts = [password if count & 1 else digest]
        if count % 3:
            parts.append(salt_bytes)
        if count % 7:
            parts.append(password)
        parts.append(digest if count & 1 else password)
        digest = _md5(*parts)
    text = "".join(
        _base64(digest[a] << 16 | digest[b] << 8 | digest[c], 4)
        for a, b, c in ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5))
    )
    return f"{magic}{salt[:8]}${text}{_base64(digest[11], 2)}"


def _md5(*parts: bytes) -> bytes:
    return hashlib.md5(b"".join(parts), usedforsecurity=False).digest()


def _base64(value: int, length: int) -> str:
    """Return `length` characters, the least significant six bits first."""
    return "".join(_ALPHABET[value >> 6 * index & 63] for index in range(length))


_VERIFY: Final[dict[Kind, Callable[[bytes, str], bool]]] = {
    "bcrypt": _verify_bcrypt,
    "sha1": _verify_sha1,
    "md5": _verify_md5,
}
