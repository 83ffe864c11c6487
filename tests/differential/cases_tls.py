"""TLS: which certificate and which options a name gets, and requests that come over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from attrs import evolve

from tests.differential.record import Ask, Difference, case, get, ws
from tests.differential.world import TRUSTED
from tests.tlsfiles import Authority, Files

HOST: Final = "{host}"
"""As a server name: that of the case's router."""

MIDDLEWARES: Final[dict[str, Any]] = {
    "tls-redirect": {"redirectScheme": {"scheme": "https"}},
    "tls-sts": {"headers": {"stsSeconds": 300, "customResponseHeaders": {"X-Secured": "yes"}}},
}

SERVICES: Final[dict[str, Any]] = {}

ROUTERS: Final[dict[str, Any]] = {
    "tls-open": {"rule": "Host(`open.tls.example`)", "tls": {}},
    "tls-mutual": {"rule": "Host(`mutual.tls.example`)", "tls": {"options": "mutual"}},
    "tls-perhaps": {"rule": "Host(`perhaps.tls.example`)", "tls": {"options": "perhaps"}},
    "tls-below": {"rule": "Host(`*.below.example`)", "tls": {"options": "mutual"}},
    "tls-strict": {"rule": "Host(`strict.nowhere`)", "tls": {"options": "strict"}},
    "tls-strict-known": {"rule": "Host(`strict.tls.example`)", "tls": {"options": "strict"}},
    "tls-new": {"rule": "Host(`new.tls.example`)", "tls": {"options": "new"}},
    "tls-old": {"rule": "Host(`old.tls.example`)", "tls": {"options": "old"}},
    "tls-two-minds": {"rule": "Host(`minds.tls.example`)", "tls": {"options": "new"}},
    "tls-two-minds-2": {"rule": "Host(`minds.tls.example`) && PathPrefix(`/2`)", "tls": {}},
    "tls-guard": {"rule": "Host(`guard.tls.example`)", "tls": {"options": "mutual"}},
    "tls-guard-2": {"rule": "Host(`guard.tls.example`) && PathPrefix(`/2`)", "tls": {}},
    "tls-anywhere": {"rule": "PathPrefix(`/only-with-a-certificate`)", "tls": {"options": "mutual"}},
    "tls-two-hosts": {
        "rule": "Host(`one.tls.example`) || Host(`two.tls.example`)",
        "tls": {"options": "new"},
    },
    "tls-both": {"rule": "Host(`both.tls.example`)", "tls": {}},
    "tls-both-plain": {"rule": "Host(`both.tls.example`)"},
}
"""Beside those of the cases; the service is the usual one."""


def make_files(folder: Path) -> dict[str, Any]:
    """Write certificates below `folder` and return the section `tls` that names them."""
    authority, clients = Authority(folder), Authority(folder, "clients")
    served = [
        authority.issue("wild", "*.test"),
        authority.issue("exact", "exact.tls.example"),
        authority.issue("below", "*.tls.example"),
    ]
    clients.issue("known", "ada@tls.example")
    Authority(folder, "strangers").issue("unknown", "eve@tls.example")
    auth = {"caFiles": [str(clients.file)]}
    return {
        "certificates": [each.section for each in served],
        "options": {
            "mutual": {"clientAuth": {**auth, "clientAuthType": "RequireAndVerifyClientCert"}},
            "perhaps": {"clientAuth": {**auth, "clientAuthType": "VerifyClientCertIfGiven"}},
            "strict": {"sniStrict": True},
            "new": {"minVersion": "VersionTLS13"},
            "old": {"maxVersion": "VersionTLS12", "cipherSuites": ["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]},
        },
    }  # fmt: skip


def files_of(folder: Path, name: str) -> Files:
    """Return the files of the client's certificate `name`."""
    return Files(folder / f"{name}.pem", folder / f"{name}.key")


def over(name: str, ask: Ask, *, shows: str = "", version: str = "", alpn: tuple[str, ...] = ()) -> Ask:
    """Return `ask` over TLS: to the server name `name`, with a client's certificate, in one version alone."""
    return evolve(ask, server_name=name, shows=shows, tls_version=version, alpn=alpn)


def to(host: str, ask: Ask) -> Ask:
    """Return `ask` with another Host."""
    return evolve(ask, host=host)


def at(host: str, ask: Ask, *, shows: str = "", version: str = "") -> Ask:
    """Return `ask` for `host`, over TLS with that name."""
    return over(host, to(host, ask), shows=shows, version=version)


DEFAULT: Final = Difference(
    "default-certificate", "shown", ("TRAEFIK DEFAULT CERT",), ("TRIO-WSB DEFAULT CERT",)
)
PASSED_BY: Final = Difference("passed-by", "*")

CASES: Final = [
    # What the backend sees
    case("tls get", over(HOST, get("/a?b=1")), tls={}),
    case("tls handshake", over(HOST, ws("/chat")), tls={}),
    case("tls get with a port in the host", over(HOST, to("{host}:8443", get())), tls={}),
    case("tls forwarded fields of a stranger", over(HOST, get("/", "X-Forwarded-Proto: http", "X-Forwarded-Port: 1")), tls={}),
    case("tls forwarded fields of a trusted peer", over(HOST, get("/", "X-Forwarded-Proto: http", "X-Forwarded-Port: 81", source=TRUSTED)), tls={}),
    case("tls forwarded proto of a trusted peer at a handshake", over(HOST, ws("/", "X-Forwarded-Proto: https", source=TRUSTED)), tls={}),
    case("tls in version 1.2", over(HOST, get(), version="1.2"), tls={}),
    case("tls in version 1.3", over(HOST, get(), version="1.3"), tls={}),
    # Which router
    case("plain request for a router with tls", get(), tls={}),
    case("plain handshake for a router with tls", ws(), tls={}),
    case("tls request for a router without", over(HOST, get())),
    case("tls handshake for a router without", over(HOST, ws())),
    case("tls request for nobody", over("nobody.test", to("nobody.test", get()))),
    case("a host with and without tls", at("both.tls.example", get("/s")), to("both.tls.example", get("/p"))),
    # Which certificate
    case("certificate of the exact name", over("exact.tls.example", get()), tls={}),
    case("certificate of the exact name in capitals", over("EXACT.tls.example", get()), tls={}),
    case("certificate of a wildcard", over("other.tls.example", get()), tls={}),
    case("no certificate two labels below a wildcard", over("a.b.tls.example", get()), tls={}, differs=[DEFAULT]),
    case("no certificate for the name above a wildcard", over("tls.example", get()), tls={}, differs=[DEFAULT]),
    case("no certificate for the name", over("nobody.nowhere", get()), tls={}, differs=[DEFAULT]),
    case("no name", over("", get()), tls={}, differs=[DEFAULT]),
    case("no name and a handshake", over("", ws()), tls={}, differs=[DEFAULT]),
    case("strict and a known name", at("strict.tls.example", get())),
    case("strict and an unknown name", at("strict.nowhere", get())),
    # Clients' certificates
    case("certificate required and shown", at("mutual.tls.example", get(), shows="known")),
    case("certificate required and shown in a handshake", at("mutual.tls.example", ws(), shows="known")),
    case("certificate required and shown in version 1.2", at("mutual.tls.example", get(), shows="known", version="1.2")),
    case("certificate required and none", at("mutual.tls.example", get())),
    case("certificate required and none in version 1.2", at("mutual.tls.example", get(), version="1.2")),
    case("certificate required and a stranger's", at("mutual.tls.example", get(), shows="unknown")),
    case("certificate welcome and shown", at("perhaps.tls.example", get(), shows="known")),
    case("certificate welcome and none", at("perhaps.tls.example", get())),
    case("certificate welcome and a stranger's", at("perhaps.tls.example", get(), shows="unknown")),
    case("certificate required below a wildcard and none", at("a.below.example", get()), differs=[DEFAULT]),
    case("certificate required below a wildcard and shown", at("a.below.example", get(), shows="known"), differs=[DEFAULT]),
    # Host and server name
    case("host of other options", over("open.tls.example", to("mutual.tls.example", get()))),
    case("host of other options in a handshake", over("open.tls.example", to("mutual.tls.example", ws()))),
    case("host of other options without a name", over("", to("mutual.tls.example", get())), differs=[DEFAULT]),
    case("host of other options in capitals", over("open.tls.example", to("MUTUAL.tls.example", get()))),
    case("host of other options with a port", over("open.tls.example", to("mutual.tls.example:443", get()))),
    case("host of other options with a dot", over("open.tls.example", to("mutual.tls.example.", get()))),
    case("host of other options below a wildcard", over("open.tls.example", to("a.below.example", get()))),
    case("host of lesser options", over("mutual.tls.example", to("open.tls.example", get()), shows="known")),
    case("host of the same options", over("open.tls.example", to("both.tls.example", get()))),
    case("host of the same options by another name", over("one.tls.example", to("two.tls.example", get()))),
    case("host of other options that nobody serves", over("mutual.tls.example", to("nobody.tls.example", get()), shows="known")),
    # Versions
    case("version too old for the host", at("new.tls.example", get(), version="1.2")),
    case("version too new for the host", at("old.tls.example", get(), version="1.3")),
    case("version just right", at("old.tls.example", get(), version="1.2")),
    case("routers of a host in two minds", at("minds.tls.example", get(), version="1.2"), at("minds.tls.example", get("/2"))),
    case("routers of a host in two minds about certificates", at("guard.tls.example", get()), differs=[PASSED_BY]),
    case("certificate required by a router without a host", over("open.tls.example", to("else.tls.example", get("/only-with-a-certificate"))), differs=[PASSED_BY]),
    # Protocols
    case("unknown protocols", over(HOST, get(), alpn=("spdy/3",)), tls={}),
    case("http/1.1 by name", over(HOST, get(), alpn=("http/1.1",)), tls={}),
    # Middlewares that look at the scheme
    case("redirectScheme over tls", over(HOST, get("/x")), through="tls-redirect", tls={}),
    case("redirectScheme without tls", get("/x"), through="tls-redirect"),
    case("sts over tls", over(HOST, get()), through="tls-sts", tls={}),
    case("sts over tls in a handshake", over(HOST, ws()), through="tls-sts", tls={}, differs=[Difference("fields-on-101", "field *", None)]),
]  # fmt: skip
