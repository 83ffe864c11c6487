"""What must hold for entry points beside their addresses: Unix sockets, PROXY headers, redirections."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from trio_wsb.config.entrypoints import RedirectionTarget, UnixSocket
from trio_wsb.config.model import Config
from trio_wsb.config.problems import Finding, KeyPath, nearest
from trio_wsb.config.scalars import show


def entry_point_findings(config: Config, known: Collection[str]) -> Iterator[Finding]:
    """Yield what is wrong with the entry points of `config`; redirections may lead to any of `known`."""
    yield from _paths(config)
    for name, entry in config.entry_points.items():
        path: KeyPath = ("entryPoints", name)
        if entry.address.path and entry.reuse_port:
            message = "has no effect on a Unix socket"
            yield Finding((*path, "reusePort"), message, "leave it out", "warning", "effect")
        if not entry.address.path and entry.unix_socket != UnixSocket():
            message = "has no effect, for the address is no Unix socket"
            hint = 'leave it out, or write address: "unix:/PATH"'
            yield Finding((*path, "unixSocket"), message, hint, "warning", "effect", at="key")
        believed = entry.proxy_protocol
        if believed is not None and not believed.trusted_ips and not believed.insecure:
            message, hint = "believes nobody", "write the proxies' addresses in trustedIPs, or leave it out"
            yield Finding((*path, "proxyProtocol"), message, hint, code="empty", at="key")
        target = entry.http.redirections.entry_point
        if target is not None:
            yield from _target(config, target, known, (*path, "http", "redirections", "entryPoint", "to"))


def _paths(config: Config) -> Iterator[Finding]:
    """Yield what shares its path with another socket of ours."""
    control = config.control.socket
    taken: dict[str, KeyPath] = {} if control is None else {control: ("control", "socket")}
    for name, entry in config.entry_points.items():
        if not entry.address.path:
            continue
        path: KeyPath = ("entryPoints", name, "address")
        other = taken.setdefault(entry.address.path, path)
        if other != path:
            message, hint = f"{entry.address} is taken by", "give each socket a path of its own"
            yield Finding(path, message, hint, other=other)


def _target(
    config: Config, target: RedirectionTarget, known: Collection[str], path: KeyPath
) -> Iterator[Finding]:
    if target.port is not None:
        return
    if target.to not in known:
        near = nearest(target.to, known)
        names = ", ".join(sorted(known))
        hint = (
            f'name one of: {names}; or write a port such as ":443"'
            if near is None
            else f'did you mean "{near}"?'
        )
        # Not a router that could be disabled: what is to be sent elsewhere would be served here.
        yield Finding(path, f"no entry point {show(target.to)} is defined", hint)
    elif target.to in config.entry_points and not config.entry_points[target.to].address.port:
        address = config.entry_points[target.to].address
        hint = 'write the port that clients connect to, such as ":443"'
        yield Finding(path, f"{show(target.to)} has no port that is known: it listens at {address}", hint)
