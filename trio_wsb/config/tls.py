"""What the configuration says of TLS, in Traefik's vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from attrs import Factory, frozen

from trio_wsb.config.checks import FILE_PATH, NOT_EMPTY
from trio_wsb.config.options import option

Version = Literal["VersionTLS12", "VersionTLS13"]
"""Older versions are not safe (RFC 8996)."""

ClientAuthType = Literal[
    "NoClientCert",
    "RequestClientCert",
    "RequireAnyClientCert",
    "VerifyClientCertIfGiven",
    "RequireAndVerifyClientCert",
]

Curve = Literal["X25519", "CurveP256", "CurveP384", "CurveP521"]

DEFAULT: Final = "default"
"""The options of routers that name none, and the one store that there is."""

CIPHERS: Final[Mapping[str, str]] = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
}
"""OpenSSL's names of the cipher suites of TLS 1.2, by those of Go."""

CIPHERS_13: Final = frozenset(
    {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
)
"""The cipher suites of TLS 1.3, which are all safe and always on."""

UNSAFE_CIPHERS: Final = frozenset(
    {
        "TLS_RSA_WITH_RC4_128_SHA",
        "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
        "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
        "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
        "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    }
)
"""Names that Go knows and OpenSSL no longer has (RFC 7465, CVE-2016-2183)."""

CURVES: Final[Mapping[Curve, str]] = {
    "X25519": "X25519",
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
}
"""OpenSSL's names of the curves, by those of Go."""

HTTP_1: Final = "http/1.1"
"""The one protocol that is spoken (RFC 7301)."""

KNOWN_PROTOCOLS: Final = frozenset({HTTP_1, "h2", "acme-tls/1"})


@frozen
class Certificate:
    """A certificate and its private key."""

    cert_file: str = option("PEM file with the certificate, then those of its issuers.", check=FILE_PATH)
    key_file: str = option("PEM file with the private key, not encrypted.", check=FILE_PATH)


@frozen
class ClientAuth:
    """Whether clients must show a certificate (mTLS)."""

    ca_files: tuple[str, ...] = option(
        "PEM files with the authorities of clients' certificates.", (), key="caFiles"
    )
    client_auth_type: ClientAuthType | None = option(
        "`NoClientCert`, `VerifyClientCertIfGiven` or `RequireAndVerifyClientCert`, which is the default with `caFiles`.",
        None,
    )

    @property
    def wanted(self) -> Literal["none", "optional", "required"]:
        """Whether a certificate is asked for, and must be shown."""
        if self.client_auth_type is None:
            return "required" if self.ca_files else "none"
        return {"VerifyClientCertIfGiven": "optional", "RequireAndVerifyClientCert": "required"}.get(
            self.client_auth_type,
            "none",
        )  # type: ignore[return-value]  # the values above


@frozen
class TLSOptions:
    """How connections are secured; each router names the options of its hosts."""

    min_version: Version = option("The lowest version of TLS.", "VersionTLS12")
    max_version: Version | None = option("The highest version of TLS; without it there is no bound.", None)
    cipher_suites: tuple[str, ...] = option(
        "Cipher suites of TLS 1.2, in the order of preference, by Go's names; those of TLS 1.3 are always on.",
        (),
    )
    curve_preferences: tuple[Curve, ...] = option(
        "The one curve to use; without it those that OpenSSL holds safe.", ()
    )
    client_auth: ClientAuth = option("Clients' certificates.", ClientAuth())
    sni_strict: bool = option(
        "Refuse clients that ask for a name, or for none, that no certificate has, instead of showing the default one.",
        default=False,
    )
    alpn_protocols: tuple[str, ...] = option(
        "Protocols to agree on (ALPN); `http/1.1` is the one that is spoken.", (HTTP_1,)
    )
    disable_session_tickets: bool = option(
        "Do not let clients resume a TLS session with a ticket.", default=False
    )


@frozen
class Store:
    """The store of certificates; there is one, `default`."""

    default_certificate: Certificate | None = option(
        "Shown to clients whose name no other certificate has; without it one that is made at the start, signed by itself.",
        None,
    )


@frozen
class ServedCertificate(Certificate):
    """A certificate of ours, for the names in it."""

    stores: tuple[str, ...] = option(
        "Accepted for Traefik's sake: every certificate is in the store `default`.", ()
    )


@frozen
class TLS:
    """What TLS connections of clients are served with."""

    certificates: tuple[ServedCertificate, ...] = option(
        "Our certificates; which one a client sees is up to the name that it asks for (SNI).", ()
    )
    stores: Mapping[str, Store] = option("The store `default`.", Factory(dict))
    options: Mapping[str, TLSOptions] = option(
        "Options by name; those named `default` hold for routers that name none.", Factory(dict)
    )

    @property
    def default_certificate(self) -> Certificate | None:
        """The certificate for names that no other one has."""
        store = self.stores.get(DEFAULT)
        return None if store is None else store.default_certificate

    def options_named(self, name: str) -> TLSOptions | None:
        """Return the options of that name; `default` ones are always there."""
        return self.options.get(name) or (TLSOptions() if name == DEFAULT else None)


@frozen
class RouterTLS:
    """That a router answers requests over TLS, and those alone."""

    options: str = option(
        "Name of the TLS options of the hosts in its rule.", DEFAULT, check=NOT_EMPTY, refers="tls.options"
    )
