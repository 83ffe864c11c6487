"""The certificate of our own making, shown where there is no other: better than to refuse, though nobody trusts it."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Final

from attrs import field, frozen

from trio_wsb.config.certificates import CertificateFacts

COMMON_NAME: Final = "TRIO-WSB DEFAULT CERT"
_VALIDITY: Final = timedelta(days=365)
_CLOCK_SLACK: Final = timedelta(hours=1)
"""A client's clock may be behind."""


@frozen
class DefaultCertificate:
    """A certificate signed by itself, and its key; it is never written to a file."""

    facts: CertificateFacts
    pem: bytes = field(repr=False)
    """Both, the certificate first."""


def make_default_certificate(now: datetime) -> DefaultCertificate:
    """Return a new one, for a name that nobody asks for."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, COMMON_NAME)])
    name = f"{secrets.token_hex(16)}.trio-wsb.default"
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + _VALIDITY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM) + key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    facts = CertificateFacts(
        (name,),
        COMMON_NAME,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        hashlib.sha256(pem).digest(),
    )
    return DefaultCertificate(facts, pem)
