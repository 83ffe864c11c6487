"""What must hold between the parts of TLS: options, the routers that name them, and the hosts of their rules.

The options of a connection are chosen by the name that the client asks for (SNI), before there is a request. So a host
has one set of options, and a router without a host has those of its entry point: whatever asks for more would be passed
by, which is an error where clients' certificates are at stake and a warning otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from attrs import frozen

from trio_wsb.config.model import Config, EntryPoint, Router
from trio_wsb.config.offered import routers_on
from trio_wsb.config.problems import Finding, KeyPath, nearest, quoted
from trio_wsb.config.tls import (
    CIPHERS,
    CIPHERS_13,
    DEFAULT,
    HTTP_1,
    KNOWN_PROTOCOLS,
    UNSAFE_CIPHERS,
    ClientAuth,
    RouterTLS,
    TLSOptions,
)

_FEW = 20

_AGREE = "give all routers of a host the same options"
_NAME_A_HOST = "add Host(`...`), or name the options in http.tls of the entry point too"


@frozen
class SecuredRouter:
    """A router on an entry point where it answers over TLS; `own` says that it names the options itself."""

    name: str
    router: Router
    options: str
    own: bool


def router_tls(router: Router, entry: EntryPoint) -> RouterTLS | None:
    """Return the TLS of `router` at `entry`, None where it answers plain requests."""
    return entry.http.tls if router.tls is None else router.tls


def fallback_options(entry: EntryPoint) -> str:
    """Return the name of the options of connections for hosts that no router of `entry` names."""
    return DEFAULT if entry.http.tls is None else entry.http.tls.options


def secured_routers(config: Config, name: str, entry: EntryPoint) -> list[SecuredRouter]:
    """Return the routers that answer over TLS at the entry point `name`."""
    found = []
    for router_name, router in routers_on(config, name):
        if (tls := router_tls(router, entry)) is not None:
            found.append(SecuredRouter(router_name, router, tls.options, router.tls is not None))
    return found


def host_options(routers: Collection[SecuredRouter]) -> dict[str, set[str]]:
    """Return the names of the options that routers want for each host of their rules."""
    hosts: dict[str, set[str]] = {}
    for each in routers:
        for host in each.router.rule.hosts:
            hosts.setdefault(host, set()).add(each.options)
    return hosts


def asks_more(options: TLSOptions, than: TLSOptions) -> bool:
    """Whether clients that satisfy `than` have not shown what `options` want to see of them."""
    return options.client_auth.wanted != "none" and options.client_auth != than.client_auth


def tls_findings(config: Config, known: Collection[str]) -> Iterator[Finding]:
    """Yield what is wrong with TLS in `config`; routers may name any of the options `known`."""
    for name, options in config.tls.options.items():
        yield from _options(options, ("tls", "options", name))
    for name in config.tls.stores:
        if name != DEFAULT:
            message = f"is not used: there is one store, {DEFAULT}"
            yield Finding(
                ("tls", "stores", name), message, f"name it {DEFAULT}", "warning", "effect", at="key"
            )
    for index, certificate in enumerate(config.tls.certificates):
        if not {DEFAULT}.issuperset(certificate.stores):
            message = f"has no effect: every certificate is in the store {DEFAULT}"
            yield Finding(
                ("tls", "certificates", index, "stores"), message, "leave it out", "warning", "effect"
            )
    for name, router in config.http.routers.items():
        if router.tls is not None:
            yield from _reference(router.tls.options, known, ("http", "routers", name, "tls", "options"))
    for name, entry in config.entry_points.items():
        if entry.http.tls is not None:
            yield from _reference(
                entry.http.tls.options, known, ("entryPoints", name, "http", "tls", "options")
            )
    yield from _by_host(config)


def _options(options: TLSOptions, path: KeyPath) -> Iterator[Finding]:
    # The names of versions sort as the versions do.
    if options.max_version is not None and options.max_version < options.min_version:
        message = f"is lower than minVersion, which is {options.min_version}"
        yield Finding((*path, "maxVersion"), message, "write VersionTLS13, or leave it out")
    yield from _ciphers(options, (*path, "cipherSuites"))
    if len(options.curve_preferences) > 1:
        message = "has more than one curve, among which no order can be given here"
        yield Finding((*path, "curvePreferences"), message, "write one, or leave it out for those held safe")
    if HTTP_1 not in options.alpn_protocols:
        hint = f"write {HTTP_1}, the one protocol that is spoken"
        yield Finding((*path, "alpnProtocols"), f"does not have {HTTP_1}", hint)
    for index, protocol in enumerate(options.alpn_protocols):
        here = (*path, "alpnProtocols", index)
        if protocol not in KNOWN_PROTOCOLS:
            near = nearest(protocol, KNOWN_PROTOCOLS)
            hint = f"write {HTTP_1}" if near is None else f"did you mean {near}?"
            yield Finding(here, f"{quoted(protocol)} is not a protocol that is known here", hint)
        elif protocol != HTTP_1:
            message = f"{quoted(protocol)} is never agreed on"
            yield Finding(here, message, f"{HTTP_1} is the one protocol that is spoken", "warning", "effect")
    yield from _client_auth(options.client_auth, (*path, "clientAuth"))


def _ciphers(options: TLSOptions, path: KeyPath) -> Iterator[Finding]:
    for index, name in enumerate(options.cipher_suites):
        if name in UNSAFE_CIPHERS:
            yield Finding((*path, index), f"{quoted(name)} is not safe and no longer there", "leave it out")
        elif name not in CIPHERS and name not in CIPHERS_13:
            known = {**dict.fromkeys(CIPHERS_13), **CIPHERS}
            by_openssl = {theirs: ours for ours, theirs in CIPHERS.items()}
            near = by_openssl.get(name) or nearest(name, known)
            hint = (
                "write the name of a cipher suite of TLS 1.2, such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
            )
            if near is not None:
                hint = f"did you mean {near}?"
            yield Finding((*path, index), f"{quoted(name)} is not a cipher suite that is known here", hint)
    chosen = [name for name in options.cipher_suites if name not in CIPHERS_13]
    if options.cipher_suites and not chosen and options.min_version == "VersionTLS12":
        hint = "write minVersion: VersionTLS13 beside it, or suites of TLS 1.2"
        yield Finding(path, "has none for TLS 1.2, and those of TLS 1.3 are always on", hint)
    elif chosen and options.min_version == "VersionTLS13":
        message = "has no effect: the suites of TLS 1.3 are always on, and no other version is spoken"
        yield Finding(path, message, "leave it out", "warning", "effect")


def _client_auth(auth: ClientAuth, path: KeyPath) -> Iterator[Finding]:
    here = (*path, "clientAuthType")
    kind = auth.client_auth_type
    if kind in {"RequestClientCert", "RequireAnyClientCert"}:
        # OpenSSL would take the certificate, but the ssl module offers no way to ask for one without judging it.
        better = "VerifyClientCertIfGiven" if kind == "RequestClientCert" else "RequireAndVerifyClientCert"
        message = f"{kind} is not possible here: a certificate that is asked for is verified"
        yield Finding(here, message, f"write {better} and the authorities in caFiles")
    elif kind not in {None, "NoClientCert"} and not auth.ca_files:
        message = f"{kind} has nobody to trust"
        yield Finding(here, message, "name the authorities of clients' certificates in caFiles")
    elif kind == "NoClientCert" and auth.ca_files:
        message = "has no effect: with NoClientCert no certificate is asked for"
        hint = "leave clientAuthType out to require one"
        yield Finding((*path, "caFiles"), message, hint, "warning", "effect")


def _reference(name: str, known: Collection[str], path: KeyPath) -> Iterator[Finding]:
    if name in known or name == DEFAULT:
        return
    near = nearest(name, known) if len(known) <= _FEW else None
    hint = "define them under tls.options" if near is None else f'did you mean "{near}"?'
    if "@" in name:
        hint = f"write a name that a file defines, without @{quoted(name.partition('@')[2])[1:-1]}"
    yield Finding(path, f"no TLS options {quoted(name)} are defined", hint, "warning", "reference")


def _by_host(config: Config) -> Iterator[Finding]:
    """Yield where a router's options cannot be those of the connections that lead to it."""
    told: set[tuple[str, str]] = set()
    for name, entry in config.entry_points.items():
        routers = secured_routers(config, name, entry)
        wanted, fallback = host_options(routers), fallback_options(entry)
        for each in routers:
            if each.options == fallback:
                continue
            others = [host for host in each.router.rule.hosts if len(wanted[host]) > 1]
            if each.router.rule.hosts and not others:
                continue
            why, hint = "are chosen by host, and the rule has no Host(`...`)", _NAME_A_HOST
            if others:
                why, hint = f"differ from those of other routers for {quoted(others[0])}", _AGREE
            finding = _passed_by(config, each, fallback, name, why, hint)
            if (each.name, finding.message) not in told:
                told.add((each.name, finding.message))
                yield finding


def _passed_by(
    config: Config, each: SecuredRouter, fallback: str, entry_point: str, why: str, hint: str
) -> Finding:
    path: KeyPath = ("http", "routers", each.name)
    if each.own:
        path = (*path, "tls", "options")
    mine, theirs = config.tls.options_named(each.options), config.tls.options_named(fallback)
    message = f"its options {quoted(each.options)} {why}"
    if mine is None or theirs is None or not asks_more(mine, theirs):
        message += f', so the options {quoted(fallback)} hold at the entry point "{entry_point}"'
        return Finding(path, message, hint, "warning", "effect")
    return Finding(path, f"{message}, so clients without a certificate could pass", hint, code="value")
