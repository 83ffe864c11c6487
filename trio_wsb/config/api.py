"""The API and the dashboard: whether they are there, and for whom."""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from trio_wsb.config.options import option
from trio_wsb.middleware.options import Bound

_BASE = re.compile(r"(?:/[0-9A-Za-z._~-]+)*/?")
_HOST = re.compile(r"(?:\*\.)?(?!-)[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*\.?")

BASE_PATH: Final = Bound(
    'begins with "/"',
    lambda value: value.startswith("/") and _BASE.fullmatch(value) is not None,
    'is not a path that begins with "/" and has letters, digits, ".", "_", "~" and "-" alone',
    'write a path such as "/balancer"',
)

HOSTS: Final = Bound(
    "host names without ports",
    lambda values: all(_HOST.fullmatch(value) for value in values),
    "has something that is no host name",
    'write names such as "balancer.internal", without a port; "*.internal" is every name below it',
)


@frozen
class API:
    """What shows the daemon's state to people and programs; it changes nothing."""

    dashboard: bool = option("Show the dashboard, at /dashboard/.", default=True)
    insecure: bool = option(
        "Answer on the entry point `traefik` too, without a router, as Traefik does. The entry point `admin` always "
        "answers, unless a router of its own leads to `api@internal` or `dashboard@internal`.",
        default=False,
    )
    base_path: str = option("What stands before /api and /dashboard in paths.", "/", check=BASE_PATH)
    allowed_hosts: tuple[str, ...] = option(
        "Names by which the API may be asked for without a router, beside `localhost`, addresses, and the host of the "
        "entry point's own address: a page of a stranger must not read it by a name that it has pointed here "
        "(DNS rebinding).",
        (),
        check=HOSTS,
    )
