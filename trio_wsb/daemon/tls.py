"""What clients' TLS connections are served with: certificates, contexts and terms, from configuration and files.

A context belongs to one set of options and one certificate. One whose options and files are what they were is taken over
from the configuration before, so that the tickets which clients hold go on being good.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Hashable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from attrs import field, frozen

from trio_wsb.config.certificates import CertificateFacts, CertificateFileError, out_of_date, read_certificate
from trio_wsb.config.load import read_file
from trio_wsb.config.model import Config, EntryPoint
from trio_wsb.config.tls import CIPHERS, CURVES, Certificate, TLSOptions, Version
from trio_wsb.config.tlschecks import fallback_options, host_options, secured_routers
from trio_wsb.daemon.tlsdefault import DefaultCertificate, make_default_certificate
from trio_wsb.errors import ConfigurationError
from trio_wsb.net.tls import ANY_VERSION, CertificateError, load_certificate
from trio_wsb.net.tlsserver import load_certificate_bytes, server_context
from trio_wsb.proxy.secure import Terms, TLSEntry
from trio_wsb.routing.hosts import HostTable

RENEW_DEFAULT: Final = timedelta(days=30)
"""Validity that a certificate of our own making must have left to be taken over."""

VERSIONS: Final[Mapping[Version, ssl.TLSVersion]] = {
    "VersionTLS12": ssl.TLSVersion.TLSv1_2,
    "VersionTLS13": ssl.TLSVersion.TLSv1_3,
}

_Source = tuple[object, bytes]
"""What a context was made from: settings and contents of options, and the digest of a certificate and its key."""


@frozen
class LoadedCertificate:
    """A certificate that clients are shown; `files` is None for the one that was made here."""

    place: str
    """Its key path in the configuration."""
    facts: CertificateFacts
    files: Certificate | None = None
    is_default: bool = False

    def days_left(self, now: datetime) -> int:
        """Return the whole days for which it is still valid, less than 0 when it has expired."""
        return (self.facts.not_after - now) // timedelta(days=1)


@frozen
class ServerTLS:
    """All of it, ready to serve; nothing here shows a key."""

    certificates: tuple[LoadedCertificate, ...] = ()
    """In the order in which they are chosen from; the default one is last."""
    entries: Mapping[str, TLSEntry] = field(factory=dict)
    """By entry point, for those with a router that answers over TLS."""
    contexts: Mapping[_Source, ssl.SSLContext] = field(factory=dict, repr=False)
    client_auth: Mapping[str, Hashable] = field(factory=dict)
    """What clients must show under each of the options that are in use."""
    made: DefaultCertificate | None = None
    warnings: tuple[str, ...] = ()


def load_server_tls(config: Config, previous: ServerTLS | None, now: datetime) -> ServerTLS:
    """Return what the clients of `config` are served with; reads files, so call it off the event loop.

    Raises:
      ConfigurationError: with every file that cannot be used.

    """
    routers = {name: secured_routers(config, name, entry) for name, entry in config.entry_points.items()}
    spoken = [
        name for name, each in config.entry_points.items() if routers[name] or each.http.tls is not None
    ]
    problems: list[str] = []
    certificates = list(_read_all(config, problems))
    made = None
    if spoken and not any(each.is_default for each in certificates):
        made = None if previous is None else previous.made
        if made is None or made.facts.not_after - now < RENEW_DEFAULT:
            made = make_default_certificate(now)
        certificates.append(LoadedCertificate("tls.stores.default", made.facts, is_default=True))
    if problems:
        raise ConfigurationError(problems)
    if not spoken:
        return ServerTLS(tuple(certificates), warnings=tuple(_warnings(certificates, now)))
    loader = _Loader(config, certificates, made, {} if previous is None else previous.contexts)
    entries = {name: loader.entry(name, config.entry_points[name]) for name in spoken}
    client_auth = {
        each.options: loader.client_auth(each.options) for found in routers.values() for each in found
    }
    if loader.problems:
        raise ConfigurationError(list(dict.fromkeys(loader.problems)))
    return ServerTLS(
        tuple(certificates),
        entries,
        loader.used,
        client_auth,
        made,
        tuple(_warnings(certificates, now)),
    )


def _read_all(config: Config, problems: list[str]) -> Iterator[LoadedCertificate]:
    places: list[tuple[str, Certificate, bool]] = [
        (f"tls.certificates[{index}]", each, False) for index, each in enumerate(config.tls.certificates)
    ]
    if config.tls.default_certificate is not None:
        places.append(("tls.stores.default.defaultCertificate", config.tls.default_certificate, True))
    for place, files, is_default in places:
        try:
            yield LoadedCertificate(place, read_certificate(files, read_file), files, is_default)
        except CertificateFileError as error:  # it was well when the configuration was checked, a moment ago
            problems.append(f"{place}.{error.key}: {error.message} ({error.hint})")


def _warnings(certificates: list[LoadedCertificate], now: datetime) -> Iterator[str]:
    names: dict[str, str] = {}
    for each in certificates:
        if each.files is None:
            continue
        file, facts = each.files.cert_file, each.facts
        if (wrong := out_of_date(file, facts, now)) is not None:
            yield f"{each.place}.certFile: {wrong[0]} ({wrong[1]})"
        for name in () if each.is_default else facts.names:
            first = names.setdefault(name, each.place)
            if first != each.place:
                yield f'{each.place}.certFile: "{name}" is in {first} too, which is shown (remove one of the two)'


class _Loader:
    """Makes contexts, each once; `used` are all of them, `problems` why some could not be made."""

    def __init__(
        self,
        config: Config,
        certificates: list[LoadedCertificate],
        made: DefaultCertificate | None,
        known: Mapping[_Source, ssl.SSLContext],
    ) -> None:
        self._config = config
        self._made = made
        self._known = known
        self._by_digest = {each.facts.digest: each for each in reversed(certificates)}
        self._default = next(each for each in certificates if each.is_default).facts.digest
        self._table = HostTable(
            [
                (name, each.facts.digest)
                for each in certificates
                if not each.is_default
                for name in each.facts.names
            ]
        )
        self._terms: dict[str, Terms] = {}
        self.used: dict[_Source, ssl.SSLContext] = {}
        self.problems: list[str] = []

    def entry(self, name: str, entry: EntryPoint) -> TLSEntry:
        """Return what the entry point `name` serves TLS with."""
        fallback = fallback_options(entry)
        hosts = host_options(secured_routers(self._config, name, entry))
        by_host = {
            host: next(iter(wanted)) if len(wanted) == 1 else fallback for host, wanted in hosts.items()
        }
        terms = {each: self._terms_named(each) for each in {fallback, *by_host.values()}}
        contexts: dict[tuple[Terms, bytes], ssl.SSLContext] = {}
        for options, key in self._needed(fallback, by_host):
            context = self._context(options, terms[options], key)
            if context is not None:
                contexts[terms[options], key] = context
        return TLSEntry(
            terms=HostTable([(host, terms[options]) for host, options in by_host.items()]),
            fallback=terms[fallback],
            certificates=self._table,
            default=self._default,
            contexts=contexts,
            strict=frozenset(each for options, each in terms.items() if self._options(options).sni_strict),
            max_handshakes=entry.max_tls_handshakes,
            guards_pages=entry.http.tls is not None,
        )

    def client_auth(self, name: str) -> Hashable:
        """Return what clients must show under the options `name`, None for nothing."""
        return self._terms_named(name).client_auth

    def _needed(self, fallback: str, by_host: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
        """Yield options and certificates that a client can get together."""
        for digest in self._by_digest:
            yield fallback, digest
        for host, options in by_host.items():
            if options == fallback:
                continue
            yield options, self._default
            found = self._table.below(host) if host.startswith("*.") else [self._table.find(host)]
            yield from ((options, digest) for digest in found if digest is not None)

    def _options(self, name: str) -> TLSOptions:
        return self._config.tls.options_named(name) or TLSOptions()

    def _terms_named(self, name: str) -> Terms:
        if (found := self._terms.get(name)) is None:
            options = self._options(name)
            auth = options.client_auth
            shown = None
            if auth.wanted != "none":
                shown = (auth.wanted, tuple(_contents(f"tls.options.{name}", auth.ca_files, self.problems)))
            found = self._terms[name] = Terms(name, options, shown)
        return found

    def _context(self, name: str, terms: Terms, digest: bytes) -> ssl.SSLContext | None:
        source = ((terms.settings, terms.client_auth), digest)
        if source in self.used:
            return self.used[source]
        context = self._known.get(source) or self._new_context(name, digest)
        if context is not None:
            self.used[source] = context
        return context

    def _new_context(self, name: str, digest: bytes) -> ssl.SSLContext | None:
        options = self._options(name)
        ciphers = [CIPHERS[each] for each in options.cipher_suites if each in CIPHERS]
        try:
            context = server_context(
                versions=(
                    VERSIONS[options.min_version],
                    VERSIONS[options.max_version] if options.max_version else ANY_VERSION[1],
                ),
                ciphers=list(dict.fromkeys(ciphers)),
                curve=CURVES[options.curve_preferences[0]] if options.curve_preferences else None,
                client_certificate=options.client_auth.wanted,
                client_cas=options.client_auth.ca_files,
                tickets=not options.disable_session_tickets,
            )
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror or "failed"
            self.problems.append(
                f"tls.options.{name}: cannot be used: {str(reason).replace('_', ' ').lower()}"
            )
            return None
        certificate = self._by_digest[digest]
        try:
            if certificate.files is not None:
                load_certificate(context, certificate.files.cert_file, certificate.files.key_file)
            elif self._made is not None:
                load_certificate_bytes(context, self._made.pem)
        except CertificateError as error:
            self.problems.append(f"{certificate.place}: cannot be used: {error}")
            return None
        return context


def _contents(place: str, files: tuple[str, ...], problems: list[str]) -> Iterator[bytes]:
    """Yield digests of what the files hold."""
    for file in files:
        try:
            yield hashlib.sha256(Path(file).read_bytes()).digest()
        except OSError as error:
            reason = (error.strerror or "failed").lower()
            problems.append(f'{place}.clientAuth.caFiles: "{file}" cannot be read: {reason}')


def now_utc() -> datetime:
    """Return this moment, as certificates count."""
    return datetime.now(UTC)
