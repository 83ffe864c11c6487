"""The state of the daemon in the shapes of Traefik's API, so that what reads one reads the other.

Keys mean what they mean there. Three things differ on purpose: secrets are left out (Traefik shows the hashes of passwords),
`serverStatus` says of a backend that is passed over for its failures that it is down, and the overview has the servers of
each service too.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from trio_wsb import __version__
from trio_wsb.config.effective import REDACTED, effective
from trio_wsb.config.internal import API, AVAILABLE, DASHBOARD
from trio_wsb.config.model import Config, Router
from trio_wsb.config.offered import ADMIN, places
from trio_wsb.config.services import Service
from trio_wsb.daemon.api.own import INTERNAL, own_middlewares, own_routers
from trio_wsb.daemon.views import DaemonState, View, member_state, moment

FILE: Final = "file"
"""The provider of what stands in files."""

UP_STATES: Final = frozenset({"ready", "full"})
"""States in which a backend is well; `full` says that it has enough."""


def named(name: str) -> str:
    """Return a name with its provider: ``chat@file``."""
    return name if "@" in name else f"{name}@{FILE}"


def provider_of(name: str) -> str:
    """Return the provider of a name."""
    return name.rpartition("@")[2] if "@" in name else FILE


def overview(state: DaemonState, now: float) -> View:
    """Return what ``GET /api/overview`` answers."""
    config = _config(state)
    found = services(state, now)
    # The guide's `.http.services."chat@file".serverStatus` finds its servers beside the totals.
    servers = {
        str(row["name"]): {"serverStatus": row["serverStatus"]} for row in found if "serverStatus" in row
    }
    return {
        "http": {
            "routers": _totals(routers(state)),
            "services": {**_totals(found), **servers},
            "middlewares": _totals(middlewares(state)),
        },
        "tcp": {"routers": _totals([]), "services": _totals([]), "middlewares": _totals([])},
        "udp": {"routers": _totals([]), "services": _totals([])},
        "certificates": _totals([]),
        "features": {
            "tracing": "",
            "metrics": "Prometheus" if getattr(config, "metrics", None) is not None else "",
            "accessLog": getattr(config, "access_log", None) is not None,
            "kernelRelay": state.proxy.kernel.table is not None,
        },
        "providers": sorted({provider_of(name).capitalize() for name in _defined(config)} | {"File"}),
    }


def version(state: DaemonState) -> View:
    """Return what ``GET /api/version`` answers."""
    return {"Version": __version__, "Codename": "trio-wsb", "startDate": moment(state.started.wall)}


def rawdata(state: DaemonState, now: float) -> View:
    """Return what ``GET /api/rawdata`` answers: everything by name, without secrets."""
    return {
        "routers": _by_name(routers(state)),
        "middlewares": _by_name(middlewares(state)),
        "services": _by_name(services(state, now)),
    }


def entry_points(state: DaemonState) -> list[View]:
    """Return what ``GET /api/entrypoints`` answers."""
    return [{**effective(entry), "name": name} for name, entry in sorted(_config(state).entry_points.items())]


def routers(state: DaemonState) -> list[View]:
    """Return what ``GET /api/http/routers`` answers, by name, disabled routers and the balancer's own included."""
    config, current = _config(state), state.reloader.current
    rows = [_router(name, router, config, status="enabled") for name, router in config.http.routers.items()]
    for each in () if current is None else current.disabled:
        error = {"error": list(each.reasons)}
        if each.router is None:
            rows.append(
                {"status": "disabled", **error, "name": named(each.name), "provider": provider_of(each.name)}
            )
        else:
            rows.append({**_router(each.name, each.router, config, status="disabled"), **error})
    rows += own_routers(config, direct_entry_points(state))
    return _sorted(rows)


def services(state: DaemonState, now: float) -> list[View]:
    """Return what ``GET /api/http/services`` answers, by name."""
    config = _config(state)
    users = _users(state, lambda router: [router.service])
    status = {
        name: {
            str(member.backend.url): "UP" if member_state(service.pool, member, now) in UP_STATES else "DOWN"
            for member in service.pool.members
        }
        for name, service in state.proxy.runtime.services.items()
    }
    rows: list[View] = []
    for name, service in config.http.services.items():
        row: View = {**effective(service), "status": "enabled", **_used_by(users.get(name))}
        row |= {"name": named(name), "provider": provider_of(name), "type": _kind(service)}
        if name in status:
            row["serverStatus"] = status[name]
        rows.append(row)
    leading = {str(row["service"]) for row in own_routers(config, direct_entry_points(state))}
    for name in {*AVAILABLE, *leading}:
        own: View = {"status": "enabled", **_used_by(users.get(name)), "name": name, "provider": INTERNAL}
        rows.append(own)
    return _sorted(rows)


def middlewares(state: DaemonState) -> list[View]:
    """Return what ``GET /api/http/middlewares`` answers, by name."""
    config, users = _config(state), _users(state, lambda router: list(router.middlewares))
    return _sorted(
        [
            *own_middlewares(config),
            *(
                {
                    **_without_secrets(effective(middleware)),
                    "status": "enabled",
                    **_used_by(users.get(name)),
                    "name": named(name),
                    "provider": provider_of(name),
                    "type": next((kind.lower() for kind, _ in middleware.kinds()), ""),
                }
                for name, middleware in config.http.middlewares.items()
            ),
        ]
    )


class Guard(Enum):
    """What stands before the API on an entry point."""

    NONE = 0
    """It answers without a router."""
    ROUTER = 1
    """A router leads to it, so that it is not there without one."""
    UNKNOWN = 2
    """There is a router that cannot be read, and it may lead here."""


def guard(state: DaemonState, entry_point: str) -> Guard:
    """Return what stands before the API on an entry point.

    A disabled router counts too: what it was meant to hold back must not be open because it does not run.
    """
    config, current = _config(state), state.reloader.current
    disabled = () if current is None else current.disabled
    found = [*config.http.routers.values(), *(each.router for each in disabled if each.router is not None)]
    for router in found:
        listens = places(router, (entry_point,)) or entry_point in router.entry_points
        if router.service in {API, DASHBOARD} and listens:
            return Guard.ROUTER
    unknown = [each for each in disabled if each.router is None]
    may_lead_here = any(each.leads_to in {None, API, DASHBOARD} for each in unknown)
    return Guard.UNKNOWN if may_lead_here else Guard.NONE


def direct_entry_points(state: DaemonState) -> list[str]:
    """Return the entry points that answer the API without a router."""
    config = _config(state)
    if config.api is None:
        return []
    wanted = [ADMIN, TRAEFIK] if config.api.insecure else [ADMIN]
    return [name for name in wanted if name in config.entry_points and guard(state, name) is Guard.NONE]


TRAEFIK: Final = "traefik"
"""The entry point at which Traefik's API answers with `insecure`."""


def _config(state: DaemonState) -> Config:
    current = state.reloader.current
    return Config() if current is None else current.config


def _router(name: str, router: Router, config: Config, *, status: str) -> View:
    on = list(places(router, config.entry_points)) or list(router.entry_points)
    priority = router.priority or router.rule.default_priority
    row: View = {**effective(router), "entryPoints": on, "priority": priority}
    if router.middlewares:
        row["middlewares"] = [named(each) for each in router.middlewares]
    else:
        row.pop("middlewares", None)
    return {
        **row,
        "status": status,
        "using": on,
        "name": named(name),
        "provider": provider_of(name),
        "priorityStr": str(priority),
    }


def _without_secrets(view: View) -> View:
    """Return the options of a middleware without the values that backends may take for credentials."""
    headers = view.get("headers")
    if not isinstance(headers, dict) or not headers.get("customRequestHeaders"):
        return view
    hidden = dict.fromkeys(headers["customRequestHeaders"], REDACTED)
    return {**view, "headers": {**headers, "customRequestHeaders": hidden}}


def _users(state: DaemonState, uses: Any) -> Mapping[str, list[str]]:
    """Return for each name the routers that use it, the disabled ones included."""
    config, current = _config(state), state.reloader.current
    found: dict[str, list[str]] = {}
    disabled = () if current is None else current.disabled
    pairs = list(config.http.routers.items())
    pairs += [(each.name, each.router) for each in disabled if each.router is not None]
    for name, router in pairs:
        for used in uses(router):
            found.setdefault(used, []).append(named(name))
    for row in own_routers(config, direct_entry_points(state)):
        found.setdefault(str(row["service"]), []).append(str(row["name"]))
    return found


def _used_by(users: list[str] | None) -> View:
    return {"usedBy": sorted(users)} if users else {}


def _kind(service: Service) -> str:
    for kind in ("load_balancer", "weighted", "mirroring", "failover"):
        if getattr(service, kind) is not None:
            return kind.replace("_", "")
    return ""


def _defined(config: Config) -> list[str]:
    http = config.http
    return [*http.routers, *http.services, *http.middlewares]


def _totals(rows: list[View]) -> View:
    count = {status: sum(row["status"] == status for row in rows) for status in ("warning", "disabled")}
    return {"total": len(rows), "warnings": count["warning"], "errors": count["disabled"]}


def _by_name(rows: list[View]) -> View:
    left_out = {"name", "provider", "type", "priorityStr"}
    return {
        str(row["name"]): {key: value for key, value in row.items() if key not in left_out} for row in rows
    }


def _sorted(rows: list[View]) -> list[View]:
    return sorted(rows, key=lambda row: str(row["name"]))
