"""Moments as the API and the control socket write them."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(wall: float) -> str:
    """Return seconds since 1970 as RFC 3339 writes them, in UTC: ``2025-01-31T12:00:00.123Z``."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
