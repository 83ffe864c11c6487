"""basicAuth and forwardAuth."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final

from tests.differential.record import Difference, case, get, post, ws
from tests.differential.world import TRUSTED


def basic(user: str, password: str) -> str:
    return f"Authorization: Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


USERS: Final = [
    "sha:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
    "apr:$apr1$abcdefgh$FBwExRW4dCc8aL.OvjpIE1",
    "bcr:$2b$04$fxeSBMN0dB4khC3BlAVe7esZQTuYPoxSaiwKfxW3Fqm1XMKaTrdRu",
]

MIDDLEWARES: Final[dict[str, Any]] = {
    "basic": {"basicAuth": {"users": USERS}},
    "basic-realm": {"basicAuth": {"users": USERS, "realm": 'The "inner" circle'}},
    "basic-field": {"basicAuth": {"users": USERS, "headerField": "X-User", "removeHeader": True}},
    "auth": {"forwardAuth": {"address": "{auth}/verify?a=1"}},
    "auth-fields": {
        "forwardAuth": {"address": "{auth}/", "authResponseHeaders": ["X-Auth-User", "X-Auth-Group"]}
    },
    "auth-regex": {"forwardAuth": {"address": "{auth}/", "authResponseHeadersRegex": "^X-Auth-"}},
    "auth-request": {
        "forwardAuth": {"address": "{auth}/", "authRequestHeaders": ["X-Auth-Answer", "Cookie"]}
    },
    "auth-trust": {"forwardAuth": {"address": "{auth}/", "trustForwardHeader": True}},
    "auth-cookies": {"forwardAuth": {"address": "{auth}/", "addAuthCookiesToResponse": ["sid", "a"]}},
    "auth-location": {"forwardAuth": {"address": "{auth}/", "preserveLocationHeader": True}},
    "auth-dead": {"forwardAuth": {"address": "{dead}/"}},
}

SERVICES: Final[dict[str, Any]] = {}

USER: Final = "X-Auth-Answer: auth-user"
LOGIN: Final = "X-Auth-Answer: auth-login"
DENIED: Final = "X-Auth-Answer: auth-denied"

CASES: Final = [
    case("basic without credentials", get(), through="basic"),
    case("basic without credentials at a handshake", ws(), through="basic"),
    case("basic with SHA-1", get("/", basic("sha", "password")), through="basic"),
    case("basic with bcrypt", get("/", basic("bcr", "password")), through="basic"),
    case("basic with MD5", get("/", basic("apr", "password")), through="basic"),
    case("basic with a wrong password", get("/", basic("sha", "wrong")), through="basic"),
    case("basic with an unknown user", get("/", basic("nobody", "password")), through="basic"),
    case("basic at a handshake", ws("/", basic("sha", "password")), through="basic"),
    case("basic with a wrong bcrypt password", get("/", basic("bcr", "wrong")), through="basic"),
    case("basic with a wrong MD5 password", get("/", basic("apr", "wrong")), through="basic"),
    case("basic with another scheme", get("/", "Authorization: Bearer abc"), through="basic"),
    case("basic with garbage", get("/", "Authorization: Basic %%%"), through="basic"),
    case("basic with another realm", get(), through="basic-realm", differs=[Difference("quoted-realm", "field www-authenticate")]),
    case("basic with a field for the user", get("/", basic("sha", "password"), "X-User: evil"), through="basic-field"),
    case("basic with a field for the user of a handshake", ws("/", basic("sha", "password")), through="basic-field"),
    case("basic refusal with fields", get(), through=("h-response", "basic")),
    case("auth allows", get("/a?b=c", "Cookie: s=1", "User-Agent: test/1"), through="auth"),
    case("auth allows a post", post(b"the body", "Content-Type: text/plain"), through="auth"),
    case("auth allows a handshake", ws("/chat", "Sec-WebSocket-Protocol: chat.v2", "Origin: http://page", answer="switch-protocol"), through="auth"),
    case("auth denies", get("/", DENIED), through="auth"),
    case("auth denies a handshake", ws("/", DENIED), through="auth"),
    case("auth redirects", get("/", LOGIN), through="auth"),
    case("auth redirects with its own Location", get("/", LOGIN), through="auth-location"),
    case("auth redirects a handshake", ws("/", LOGIN), through="auth"),
    case("auth copies fields", get("/", USER, "X-Auth-User: evil", "X-Other: mine"), through="auth-fields"),
    case("auth copies fields that it has not sent", get("/", "X-Auth-User: evil"), through="auth-fields"),
    case("auth copies fields to a handshake", ws("/", USER, "X-Auth-User: evil"), through="auth-fields"),
    case("auth copies fields by pattern", get("/", USER, "X-Auth-Evil: evil"), through="auth-regex"),
    case("auth gets some fields", get("/", USER, "Cookie: s=1", "Authorization: Bearer x"), through="auth-request"),
    case("auth adds cookies", get("/", USER, answer="cookies"), through="auth-cookies"),
    case("auth adds cookies to a 101", ws("/", USER, answer="switch-cookie"), through="auth-cookies", differs=[Difference("fields-on-101", "field set-cookie")]),
    case("auth of a trusted peer", get("/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: front", source=TRUSTED), through="auth"),
    case("auth that trusts", get("/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: front", "X-Forwarded-Uri: /x", "X-Forwarded-Method: PUT", source=TRUSTED), through="auth-trust"),
    case("auth that trusts a stranger", get("/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Uri: /evil"), through="auth-trust"),
    case("auth that answers with an error", get("/", "X-Auth-Answer: broken"), through="auth"),
    case("auth that answers with garbage", get("/", "X-Auth-Answer: garbage"), through="auth"),
    case("auth that says nothing", get("/", "X-Auth-Answer: die"), through="auth"),
    case("auth that is dead", get(), through="auth-dead"),
    case("auth that is dead at a handshake", ws(), through="auth-dead"),
    case("auth behind a prefix", get("/api/a"), through=("strip", "auth")),
    case("auth behind fields", get("/", "X-Removed: x"), through=("h-request", "auth")),
    case("auth denial with fields", get("/", DENIED), through=("h-response", "auth")),
]  # fmt: skip
