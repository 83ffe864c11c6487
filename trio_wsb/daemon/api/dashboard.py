"""The dashboard: one page, made of the three files in `dashboard/` when it is asked for the first time.

The page loads nothing, and the browser is told to run and style nothing but what was in those files when they were read:
whatever a stranger gets into a path or a pod's name stays text.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from attrs import frozen

from trio_wsb.http.headers import Field

CONTENT_TYPE: Final = "text/html; charset=utf-8"

_FOLDER: Final = "dashboard"


@frozen
class DashboardPage:
    """The page and what its answer says beside its type."""

    body: bytes
    headers: tuple[Field, ...]


@cache
def dashboard_page() -> DashboardPage:
    """Return the page."""
    folder = files(__package__) / _FOLDER
    page = (folder / "page.html").read_text(encoding="utf-8")
    style = (folder / "style.css").read_text(encoding="utf-8")
    script = (folder / "script.js").read_text(encoding="utf-8")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    body = page.replace("/*style*/", style).replace("/*script*/", script).encode()
    headers: tuple[Field, ...] = (
        ("Content-Security-Policy", policy),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("X-Frame-Options", "DENY"),
    )
    return DashboardPage(body, headers)


def _hash(text: str) -> str:
    """Return the source expression for an inline element with exactly this text (CSP level 3, section 2.3.1)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
