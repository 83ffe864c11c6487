"""Services: which server answers, sticky cookies, weights, failover."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.record import Difference, case, get, times, ws
from tests.differential.servers import HEALTH

MIDDLEWARES: Final[dict[str, Any]] = {}


def balanced(*servers: str, **options: Any) -> dict[str, Any]:
    return {"loadBalancer": {"servers": [{"url": f"{{{server}}}"} for server in servers], **options}}


SERVICES: Final[dict[str, Any]] = {
    "app2": balanced("app2"),
    "wrr": balanced("app1", "app2", "app3", strategy="wrr"),
    "half-dead": balanced("dead", "app2", strategy="wrr"),
    "down": balanced("dead", healthCheck={"path": HEALTH, "interval": "100ms", "timeout": "100ms"}),
    "up": balanced("app1", healthCheck={"path": HEALTH, "interval": "1s", "timeout": "1s"}),
    "over": {"failover": {"service": "down", "fallback": "app2"}},
    "not-over": {"failover": {"service": "up", "fallback": "app2"}},
    "sticky-two": balanced("app1", "app2", "app3", strategy="wrr", sticky={"cookie": {"name": "srv"}}),
    "sticky-one": balanced("app1", sticky={"cookie": {"name": "srv"}}),
    "sticky-all": balanced(
        "app1",
        sticky={
            "cookie": {
                "name": "srv",
                "secure": True,
                "httpOnly": True,
                "sameSite": "none",
                "maxAge": 60,
                "path": "/app",
                "domain": "c.test",
            }
        },
    ),
    "sticky-strict": balanced("app1", sticky={"cookie": {"name": "srv", "sameSite": "strict"}}),
    "sticky-gone": balanced("app1", sticky={"cookie": {"name": "srv", "maxAge": -1}}),
    "sticky-unnamed": balanced("app1", sticky={"cookie": {}}),
    "canary": {"weighted": {"services": [{"name": "app", "weight": 3}, {"name": "app2", "weight": 1}]}},
    "canary-0": {"weighted": {"services": [{"name": "app", "weight": 0}, {"name": "app2", "weight": 1}]}},
    "canary-sticky": {
        "weighted": {"services": [{"name": "app2", "weight": 1}], "sticky": {"cookie": {"name": "canary"}}}
    },
    "nested": {"weighted": {"services": [{"name": "canary-0", "weight": 1}]}},
}

OTHERS: Final = (
    Difference("tries-others", "servers", (("app2", 1),), (("app2", 2),)),
    Difference("tries-others", "status", 502),
    Difference("tries-others", "*", where={"status": 502}),
)

CASES: Final = [
    case("round robin", *times(6, get()), service="wrr", spread=True),
    case("round robin of handshakes", *times(6, ws()), service="wrr", spread=True),
    case("sticky", get(), service="sticky-one"),
    case("sticky handshake", ws(), service="sticky-one"),
    case("sticky with every attribute", get(), service="sticky-all"),
    case("sticky handshake with every attribute", ws(), service="sticky-all"),
    case("sticky strict", get(), service="sticky-strict"),
    case("sticky that is gone at once", get(), service="sticky-gone"),
    case("sticky without a name", get(), service="sticky-unnamed"),
    case("sticky with an unknown cookie", get("/", "Cookie: srv=0123456789abcdef"), service="sticky-one"),
    case("sticky with another cookie", get("/", "Cookie: other=1"), service="sticky-one"),
    case("sticky and a cookie of the backend", get(answer="cookies"), service="sticky-one"),
    case("sticky refused", ws(answer="forbidden"), service="sticky-one"),
    case("sticky with a cookie", *times(3, get("/", "Cookie: a=1; srv={app2}")), service="sticky-two"),
    case("sticky handshake with a cookie", *times(3, ws("/", "Cookie: srv={app3}")), service="sticky-two"),
    case(
        "sticky with the cookie of a server that is not there",
        get("/", "Cookie: srv={auth}"),
        service="sticky-one",
    ),
    case("one server of two is dead", get(), get(), service="half-dead", spread=True, differs=OTHERS),
    case(
        "one server of two is dead and handshakes",
        ws(),
        ws(),
        service="half-dead",
        spread=True,
        differs=OTHERS,
    ),
    case(
        "one server of two is dead, with retry",
        get(),
        get(),
        through="retry",
        service="half-dead",
        spread=True,
    ),
    case("failover", get(), ws(), service="over"),
    case("failover that is not needed", get(), ws(), service="not-over"),
    case("canary that sticks with a cookie", get("/", "Cookie: canary={app2}"), service="canary-sticky"),
    case("canary", *times(8, get()), service="canary", spread=True),
    case("canary of handshakes", *times(8, ws()), service="canary", spread=True),
    case("canary with weight 0", *times(3, get()), service="canary-0"),
    case("canary that sticks", get(), service="canary-sticky"),
    case("nested", ws(), service="nested"),
]
