"""basicAuth: users with passwords (RFC 7617).

One request goes through four steps, since the third is slow and belongs into a thread:

    credentials ──> remembered? ──yes──────────────> accept
         │               └──no──> verify ──true──> remember
         └──none, or false──> refusal
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Final

from attrs import field, frozen

from trio_wsb.middleware.exchange import Answer, Request, edited, is_protected
from trio_wsb.middleware.htpasswd import User
from trio_wsb.middleware.options import FIELD_NAME, FIELD_VALUE, OptionProblem, option

MAX_REMEMBERED: Final = 1024
"""Verified passwords that are remembered."""

REMEMBERED_FOR: Final = 60.0
"""Seconds for which a verified password is not verified again."""


@frozen
class BasicAuthOptions:
    """Who may pass with a name and a password."""

    users: tuple[User, ...] = option(
        "Users in the form of htpasswd, `NAME:HASH`; bcrypt, SHA-1 and MD5 are understood.", (), secret=True
    )
    users_file: str | None = option(
        "File with such lines; a user who is in both has the password of the file.", None
    )
    realm: str = option("What the browser's dialogue says it is for.", "traefik", check=FIELD_VALUE)
    header_field: str | None = option(
        "Field of the request in which the backend gets the name of the user.", None, check=FIELD_NAME
    )
    remove_header: bool = option("Keep the Authorization field from the backend.", default=False)

    def problems(self) -> Iterator[OptionProblem]:
        """Yield what is wrong between the options."""
        if not self.users and self.users_file is None:
            yield OptionProblem(("users",), "is empty, so nobody could pass", "write users or usersFile")
        if self.header_field is not None and is_protected(self.header_field.lower()):
            message = "belongs to the connection and cannot carry a name"
            yield OptionProblem(("header_field",), message, "write a name such as X-Forwarded-User")


@frozen
class Credentials:
    """What a client says that it is: bytes as they came, for the charset is nobody's to guess."""

    user: bytes
    password: bytes = field(repr=False)


class CredentialCache:
    """Remembers which passwords were right.

    What is kept is a digest, keyed with `salt`, of user, password and stored hash: a memory dump has no password in it, and a
    user whose hash changes is verified anew. Wrong passwords are not remembered: strangers could fill the cache with them.

    Resource handling: at most `limit` digests of 32 bytes.
    """

    __slots__ = ("_known", "_lifetime", "_limit", "_salt")

    def __init__(self, salt: bytes, *, limit: int = MAX_REMEMBERED, lifetime: float = REMEMBERED_FOR) -> None:
        """Make an empty cache; `salt` is 32 random bytes that nobody else knows."""
        self._salt = salt
        self._limit = limit
        self._lifetime = lifetime
        self._known: OrderedDict[bytes, float] = OrderedDict()

    def knows(self, credentials: Credentials, secret: str, now: float) -> bool:
        """Whether this password was verified less than the lifetime ago; being asked does not prolong that."""
        digest = self._digest(credentials, secret)
        expires = self._known.get(digest)
        if expires is None:
            return False
        if now < expires:
            return True
        del self._known[digest]
        return False

    def remember(self, credentials: Credentials, secret: str, now: float) -> None:
        """Note that this password was verified."""
        digest = self._digest(credentials, secret)
        self._known[digest] = now + self._lifetime
        self._known.move_to_end(digest)
        if len(self._known) > self._limit:
            self._known.popitem(last=False)

    def _digest(self, credentials: Credentials, secret: str) -> bytes:
        digest = blake2b(key=self._salt, digest_size=32)
        for part in (credentials.user, credentials.password, secret.encode()):
            digest.update(len(part).to_bytes(8))
            digest.update(part)
        return digest.digest()

    def __len__(self) -> int:
        return len(self._known)


class BasicAuth:
    """The steps for one middleware; immutable, except for the cache, which a reload may hand on."""

    def __init__(self, options: BasicAuthOptions, users: Mapping[str, User], cache: CredentialCache) -> None:
        """Make the steps.

        Args:
          options: of the middleware; its users count only if they are in `users` too.
          users: all who may pass, by name, those of the file included.
          cache: may be shared.

        """
        self._users = {name.encode(): user for name, user in users.items()}
        self._cache = cache
        # Stands in for a user that there is not, so that the time of an answer does not tell which names exist.
        self._decoy = max(users.values(), key=_effort, default=None)
        self._header_field = options.header_field
        self._remove_header = options.remove_header
        realm = options.realm.replace("\\", "\\\\").replace('"', '\\"')
        self._challenge = f'Basic realm="{realm}"'

    def credentials(self, request: Request) -> Credentials | None:
        """Return what the request says, None when it says nothing that can be understood (RFC 7617 section 2)."""
        values = request.headers.get_all("authorization")
        scheme, _, token = (values[0] if len(values) == 1 else "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            decoded = base64.b64decode(token.strip(" ").encode("latin-1"), validate=True)
        except (binascii.Error, ValueError):
            return None
        user, colon, password = decoded.partition(b":")
        return Credentials(user, password) if colon else None

    def remembered(self, credentials: Credentials, now: float) -> bool:
        """Whether `verify` would say yes, as far as is known without the work."""
        user = self._users.get(credentials.user)
        return user is not None and self._cache.knows(credentials, user.secret, now)

    def verify(self, credentials: Credentials) -> bool:
        """Whether the password is right. Takes long and touches nothing: call it in a thread."""
        user = self._users.get(credentials.user)
        if user is None:
            if self._decoy is not None:
                self._decoy.verify(credentials.password)
            return False
        return user.verify(credentials.password)

    def remember(self, credentials: Credentials, now: float) -> None:
        """Note that `verify` has said yes."""
        user = self._users.get(credentials.user)
        if user is not None:
            self._cache.remember(credentials, user.secret, now)

    def accept(self, request: Request, credentials: Credentials) -> Request:
        """Return the request as the backend is to see it; whatever the client put into `headerField` is gone."""
        removed = {"authorization"} if self._remove_header else set()
        if self._header_field is None:
            return request.with_headers(edited(request.headers, removed)) if removed else request
        removed.add(self._header_field.lower())
        name = (self._header_field, credentials.user.decode("latin-1"))
        return request.with_headers(edited(request.headers, removed, [name]))

    def refusal(self) -> Answer:
        """Return the answer to everybody else."""
        return Answer(
            401,
            "not authenticated",
            (("Content-Type", "text/plain"), ("WWW-Authenticate", self._challenge)),
            b"401 Unauthorized\n",
        )


def _effort(user: User) -> tuple[bool, str]:
    return user.kind == "bcrypt", user.secret[4:6] if user.kind == "bcrypt" else user.kind
