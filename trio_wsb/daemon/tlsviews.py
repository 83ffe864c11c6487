"""What the log and `status` say of certificates and TLS handshakes; never a key."""

from __future__ import annotations

from datetime import datetime

import structlog

from trio_wsb.config.certificates import EXPIRES_SOON
from trio_wsb.daemon.tls import LoadedCertificate, ServerTLS
from trio_wsb.proxy.runtime import Proxy

log = structlog.stdlib.get_logger("trio_wsb.tls")

View = dict[str, object]


def log_certificates(tls: ServerTLS, previous: ServerTLS | None = None) -> None:
    """Log a line for each certificate that is shown from now on and was not before: for which names, until when."""
    known = set() if previous is None else {each.facts.digest for each in previous.certificates}
    for each in tls.certificates:
        if each.facts.digest in known:
            continue
        expires = f"{each.facts.not_after:%Y-%m-%dT%H:%M:%SZ}"
        if each.files is not None:
            log.info(
                "certificate",
                names=list(each.facts.names),
                expires=expires,
                file=each.files.cert_file,
                **({"default": True} if each.is_default else {}),
            )
        elif len(tls.certificates) == 1:
            log.warning(
                "no certificate is configured, clients are shown one that is signed by itself",
                subject=each.facts.common_name,
                hint="name certFile and keyFile under tls.certificates",
            )
        else:
            log.info(
                "certificate for other names, signed by itself",
                subject=each.facts.common_name,
                expires=expires,
            )


def certificates(tls: ServerTLS, now: datetime) -> list[View]:
    """Return each certificate: whose it is, until when, and whether it is time to renew it."""
    return [_certificate(each, now) for each in tls.certificates]


def _certificate(each: LoadedCertificate, now: datetime) -> View:
    left = each.facts.not_after - now
    expiring = "expiring" if left < EXPIRES_SOON else "valid"
    return {
        "file": None if each.files is None else each.files.cert_file,
        "subject": each.facts.common_name,
        "names": list(each.facts.names),
        "default": each.is_default,
        "notAfter": f"{each.facts.not_after:%Y-%m-%dT%H:%M:%SZ}",
        "daysLeft": each.days_left(now),
        "state": "expired" if left.total_seconds() <= 0 else expiring,
    }


def handshakes(proxy: Proxy, entry_point: str) -> View | None:
    """Return how the TLS handshakes of an entry point go, None where none are made."""
    entry, found = proxy.runtime.entry_points.get(entry_point), proxy.handshakes
    if entry is None or entry.tls is None:
        return None
    return {
        "underWay": found.under_way[entry_point],
        "max": entry.tls.max_handshakes,
        "completed": found.completed_total[entry_point],
        "failed": found.failed_total[entry_point],
        "refused": found.refused_total[entry_point],
    }
