"""What is wrong with a router disables that router; the others run, and nothing runs without what holds strangers back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.config.helpers import document
from trio_wsb.config.disable import Usable, is_fatal, usable
from trio_wsb.config.load import load
from trio_wsb.config.model import Config
from trio_wsb.config.problems import InvalidConfiguration

BALANCER = "{loadBalancer: {servers: [{url: http://a}]}}"
TOP = f"""\
entryPoints:
  web: {{address: ':80'}}
  admin: {{address: ':81'}}
http:
  services:
    chat: {BALANCER}
    canary: {{weighted: {{services: [{{name: chat}}, {{name: gone}}]}}}}
    outer: {{failover: {{service: chat, fallback: canary}}}}
    round: {{failover: {{service: chat, fallback: trip}}}}
    trip: {{failover: {{service: round, fallback: chat}}}}
    own: {{loadBalancer: {{servers: [{{url: http://b}}], serversTransport: mtls}}}}
  middlewares:
    limit: {{rateLimit: {{average: 10}}}}
    guard: {{ipAllowList: {{sourceRange: [10.0.0.0/8, 10.0.0.0/99]}}}}
    both: {{rateLimit: {{average: 10}}, retry: {{attempts: 2}}}}
    none: {{}}
    first: {{chain: {{middlewares: [limit, second]}}}}
    second: {{chain: {{middlewares: [limit, missing]}}}}
    a: {{chain: {{middlewares: [b]}}}}
    b: {{chain: {{middlewares: [a]}}}}
  routers:
    good: {{rule: PathPrefix(`/`), service: chat, middlewares: [limit]}}
"""


def found(routers: str) -> Usable:
    read = document(TOP + routers)
    assert read.config is not None
    assert not any(map(is_fatal, read.problems))
    return usable(read.config, read.problems)


@pytest.mark.parametrize(
    ("router", "reason"),
    [
        ("rule: Pth(`/`), service: chat", "routers.bad.rule: unknown matcher 'Pth'"),
        ("rule: Path(`/`), service: gone", 'routers.bad.service: no service "gone" is defined'),
        ("rule: Path(`/`), service: ''", 'routers.bad.service: "" is empty'),
        ("rule: Path(`/`), service: rest@internal", '"rest@internal" is not available in this version'),
        ("rule: Path(`/`), service: chat@docker", 'no service "chat@docker" is defined'),
        ("rule: Path(`/`), service: canary", 'canary.weighted.services[1].name: no service "gone"'),
        ("rule: Path(`/`), service: outer", 'canary.weighted.services[1].name: no service "gone"'),
        ("rule: Path(`/`), service: trip", "trip.failover.service: leads back to itself"),
        ("rule: Path(`/`), service: round", "trip.failover.service: leads back to itself"),
        ("rule: Path(`/`), service: own", 'own.loadBalancer.serversTransport: no serversTransport "mtls"'),
        ("rule: Path(`/`), service: chat, middlewares: [auth]", 'no middleware "auth" is defined'),
        ("rule: Path(`/`), service: chat, middlewares: [limit, guard]", "guard.ipAllowList.sourceRange[1]"),
        ("rule: Path(`/`), service: chat, middlewares: [both]", "both: has 2 kinds"),
        ("rule: Path(`/`), service: chat, middlewares: [none]", "none: has no kind"),
        ("rule: Path(`/`), service: chat, middlewares: [second]", 'no middleware "missing" is defined'),
        ("rule: Path(`/`), service: chat, middlewares: [first]", 'no middleware "missing" is defined'),
        ("rule: Path(`/`), service: chat, middlewares: [a]", "a.chain.middlewares: leads back to itself"),
        ("rule: Path(`/`), service: chat, entryPoints: [websecure]", 'no entry point "websecure" is defined'),
    ],
)
def test_a_router_that_cannot_run(router: str, reason: str) -> None:
    result = found(f"    bad: {{{router}}}\n")
    (disabled,) = result.disabled
    assert disabled.name == "bad"
    assert any(reason in line for line in disabled.reasons)
    assert all(line.startswith("f.yaml:") for line in disabled.reasons)
    assert list(result.config.http.routers) == ["good"]
    # What is told as a router's reason is not told again.
    assert not any(str(problem) in disabled.reasons for problem in result.warnings)


def test_what_nobody_uses_is_a_warning() -> None:
    result = found("")
    assert result.disabled == ()
    assert list(result.config.http.services) == ["chat"]
    assert list(result.config.http.middlewares) == ["limit"]
    assert {problem.severity for problem in result.warnings} == {"error", "warning"}
    assert any("10.0.0.0/99" in str(problem) for problem in result.warnings)


def test_a_router_runs_on_the_entry_points_that_there_are() -> None:
    result = found("    r: {rule: Path(`/`), service: chat, entryPoints: [websecure, admin]}\n")
    assert result.disabled == ()
    assert result.config.http.routers["r"].entry_points == ("admin",)
    assert any("websecure" in problem.message for problem in result.warnings)


def test_several_routers_with_several_reasons() -> None:
    result = found(
        "    b: {rule: Path(`/`), service: gone, middlewares: [guard, auth]}\n"
        "    a: {rule: Path(`/`), service: chat, middlewares: [guard]}\n"
    )
    assert [(each.name, len(each.reasons)) for each in result.disabled] == [("a", 1), ("b", 3)]
    assert result.disabled[0].router is not None
    assert result.disabled[0].router.rule.text == "Path(`/`)"


def test_the_balancers_own_ping_is_a_service() -> None:
    result = found("    p: {rule: Path(`/health`), service: ping@internal}\n")
    assert result.disabled == ()
    assert "p" in result.config.http.routers


@pytest.mark.parametrize(
    "router",
    [
        "rule: Path(`/`), service: chat, prio: 1",
        "rule: Path(`/`), service: chat, priority: high",
        "rule: Path(`/`), service: [chat]",
        "rule: Path(`/`), service: chat, middlewares: auth",
        "rule: 5, service: chat",
        "service: chat",
    ],
)
def test_what_is_wrong_with_the_form_is_wrong_with_the_file(tmp_path: Path, router: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(f"{TOP}    bad: {{{router}}}\n    worse: {{rule: Pth(`/`), service: chat}}\n")
    with pytest.raises(InvalidConfiguration) as raised:
        load(path)
    assert any(" http.routers.bad" in problem for problem in raised.value.problems)
    assert any(" http.routers.worse.rule: " in problem for problem in raised.value.problems)


@pytest.mark.parametrize("url", ["ftp://a", "http://a:99999", "a:80"])
def test_a_bad_server_is_wrong_with_the_file(tmp_path: Path, url: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(f"http: {{services: {{s: {{loadBalancer: {{servers: [{{url: '{url}'}}]}}}}}}}}\n")
    with pytest.raises(InvalidConfiguration):
        load(path)


NAMES = st.sampled_from(["a", "b", "c", "d"])
LISTS = st.lists(NAMES, max_size=3)


@given(
    chains=st.dictionaries(NAMES, LISTS, max_size=4),
    parts=st.dictionaries(NAMES, st.tuples(NAMES, NAMES), max_size=4),
    routers=st.dictionaries(NAMES, st.tuples(NAMES, LISTS, LISTS), max_size=4),
)
@settings(deadline=None)
def test_whatever_runs_leads_to_what_is_there(
    chains: dict[str, list[str]],
    parts: dict[str, tuple[str, str]],
    routers: dict[str, tuple[str, list[str], list[str]]],
) -> None:
    lines = ["entryPoints: {a: {address: ':80'}, b: {address: ':81'}}", "http:", "  middlewares:"]
    lines += ["    limit: {rateLimit: {average: 1}}"]
    lines += [
        f"    {name}: {{chain: {{middlewares: [{', '.join([*names, 'limit'])}]}}}}"
        for name, names in chains.items()
    ]
    lines += ["  services:", f"    d: {BALANCER}"]
    lines += [
        f"    {name}: {{failover: {{service: {one}, fallback: {two}}}}}"
        for name, (one, two) in parts.items()
        if name != "d"
    ]
    lines += ["  routers:"]
    lines += [
        f"    {name}: {{rule: Path(`/`), service: {service}, middlewares: {names}, entryPoints: {points}}}"
        for name, (service, names, points) in routers.items()
    ]
    read = document("\n".join(lines))
    assert read.config is not None
    assert not any(map(is_fatal, read.problems))
    result = usable(read.config, read.problems)
    _holds(result.config)
    disabled = {each.name for each in result.disabled}
    assert disabled | set(result.config.http.routers) == set(routers)
    assert disabled.isdisjoint(result.config.http.routers)
    # What is left has no problem of its own, so nothing that could run was lost on the way round.
    for name, (service, names, points) in routers.items():
        known = not points or not {"a", "b"}.isdisjoint(points)
        runs = known and service in result.config.http.services
        assert (name in result.config.http.routers) == (
            runs and set(names) <= set(result.config.http.middlewares)
        )


def _holds(config: Config) -> None:
    http = config.http
    for service in http.services.values():
        if service.failover is not None:
            assert {service.failover.service, service.failover.fallback} <= set(http.services)
    for middleware in http.middlewares.values():
        if middleware.chain is not None:
            assert set(middleware.chain.middlewares) <= set(http.middlewares)
    for router in http.routers.values():
        assert set(router.entry_points) <= set(config.entry_points)


def test_more_problems_than_are_looked_for_are_fatal(tmp_path: Path) -> None:
    """One that is not looked for could be that of a middleware, and a router would run without it."""
    path = tmp_path / "f.yaml"
    routers = "".join(
        f"    r{number}: {{rule: Path(`/`), service: chat, middlewares: [gone]}}\n" for number in range(1001)
    )
    path.write_text(TOP + routers)
    with pytest.raises(InvalidConfiguration) as raised:
        load(path)
    assert f"{path}:1:1: there are more than 1000 problems (put these right first)" in raised.value.problems


def test_any_number_of_keys_may_be_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    routers = "".join(
        f"    r{number}: {{rule: Path(`/`), service: s, observability: {{}}}}\n" for number in range(1500)
    )
    path.write_text(f"http:\n  services: {{s: {BALANCER}}}\n  routers:\n{routers}")
    loaded = load(path)
    assert len(loaded.config.http.routers) == 1500
    assert len(loaded.warnings) == 1000
    assert loaded.disabled == ()


CLOSED = """\
entryPoints:
  web: {address: ':80', http: {middlewares: [KEY]}}
  other: {address: ':82'}
  admin: {address: ':81'}
http:
  services: {chat: {loadBalancer: {servers: [{url: 'http://a'}]}}}
  middlewares:
    good: {addPrefix: {prefix: /x}}
    empty: {}
    second: {chain: {middlewares: [good, missing]}}
    first: {chain: {middlewares: [second]}}
  routers:
    everywhere: {rule: Path(`/`), service: chat}
    here: {rule: Path(`/`), service: chat, entryPoints: [web]}
    there: {rule: Path(`/`), service: chat, entryPoints: [other, admin]}
"""


@pytest.mark.parametrize("name", ["missing", "empty", "first"])
def test_an_entry_point_without_its_middleware_offers_no_router(name: str) -> None:
    read = document(CLOSED.replace("KEY", f"good, {name}"))
    assert read.config is not None
    result = usable(read.config, read.problems)
    left = {each: router.entry_points for each, router in result.config.http.routers.items()}
    assert left == {"everywhere": ("other",), "there": ("other", "admin")}
    assert [(each.name, each.entry_points) for each in result.disabled] == [
        ("everywhere", ("web",)),
        ("here", ()),
    ]
    everywhere, here = map(str, result.disabled)
    assert everywhere.startswith('router "everywhere" is disabled on "web": ')
    assert here.startswith('router "here" is disabled: ')


def test_an_entry_point_without_its_middleware_redirects_nothing() -> None:
    text = CLOSED.replace("[KEY]", "[missing], redirections: {entryPoint: {to: other}}")
    read = document(text)
    assert read.config is not None
    result = usable(read.config, read.problems)
    assert [(each.name, each.entry_points) for each in result.disabled] == [
        ("everywhere", ("web",)),
        ("here", ()),
        ("web-to-other@internal", ("web",)),
    ]


def test_an_entry_point_that_concerns_no_router_is_a_warning() -> None:
    text = CLOSED.replace("web: {address: ':80', http: {middlewares: [KEY]}}", "web: {address: ':80'}")
    text = text.replace("admin: {address: ':81'}", "quiet: {address: ':81', http: {middlewares: [missing]}}")
    text = text.replace("[other, admin]", "[other]").replace("chat}", "chat, entryPoints: [other]}")
    read = document(text)
    assert read.config is not None
    result = usable(read.config, read.problems)
    assert result.disabled == ()
    assert [each.key_path for each in result.warnings if "quiet" in each.key_path] == [
        "entryPoints.quiet.http.middlewares[0]"
    ]
