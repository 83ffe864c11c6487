"""What the configuration says of TLS, in Traefik's vocabulary."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from trio_wsb.config.checks import FILE_PATH
from trio_wsb.config.options import option

Version = Literal["VersionTLS12", "VersionTLS13"]
"""Older versions are not safe (RFC 8996)."""


@frozen
class Certificate:
    """A certificate and its private key."""

    cert_file: str = option("PEM file with the certificate, then those of its issuers.", check=FILE_PATH)
    key_file: str = option("PEM file with the private key, not encrypted.", check=FILE_PATH)
