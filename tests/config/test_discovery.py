"""What containers give: by themselves, together, and beside files."""

from __future__ import annotations

import pytest
from attrs import evolve

from tests.config.containers import container, found, lines, urls
from trio_wsb.config.constraints import parse_constraints
from trio_wsb.config.containers import Binding, Found, parse_container
from trio_wsb.config.discovery import discover
from trio_wsb.config.docker import DockerProvider
from trio_wsb.config.document import read_document
from trio_wsb.config.load import refresh
from trio_wsb.config.model import Config
from trio_wsb.config.problems import Finding
from trio_wsb.config.sources import Loaded, Sources, assemble
from trio_wsb.config.template import parse_template
from trio_wsb.config.yamltree import MapNode

ROUTER = "traefik.http.routers.chat."
BALANCER = "traefik.http.services.chat.loadbalancer."


def test_a_container_without_labels_is_a_router_and_a_service() -> None:
    discovered = found(
        container(
            "chat_room-1", {"com.docker.compose.project": "my.app", "com.docker.compose.service": "chat_room"}
        )
    )
    http = discovered.config.http
    assert list(http.routers) == list(http.services) == ["chat-room-my-app"]
    assert http.routers["chat-room-my-app"].rule.text == "Host(`chat-room-my-app`)"
    assert http.routers["chat-room-my-app"].service == "chat-room-my-app@docker"
    assert urls(discovered, "chat-room-my-app") == ["http://10.0.0.1:8080"]
    assert list(found(container("solo")).config.http.routers) == ["solo"]


def test_the_lowest_port_counts_or_the_one_that_is_said() -> None:
    one = container("a", ports=(Binding(443), Binding(8080)))
    assert urls(found(one), "a") == ["http://10.0.0.1:443"]
    said = {
        f"{BALANCER}server.port": "8443",
        f"{BALANCER}server.scheme": "https",
        f"{BALANCER}server.weight": "3",
    }
    discovered = found(container("a", said))
    assert urls(discovered, "chat") == ["https://10.0.0.1:8443"]
    balancer = discovered.config.http.services["chat"].load_balancer
    assert balancer is not None
    assert balancer.servers[0].weight == 3
    whole = found(container("a", {f"{BALANCER}server.url": "https://elsewhere:1"}))
    assert urls(whole, "chat") == ["https://elsewhere:1"]


def test_a_container_without_a_port() -> None:
    # One that asks for nothing is none of ours; one that does is told.
    assert found(container("cron", ports=())).states[0].verdict == "ignored"
    discovered = found(container("cron", {f"{ROUTER}rule": "Host(`a`)"}, ports=()))
    (line,) = lines(discovered)
    assert line.startswith(
        'container "cron" traefik.http.services.cron: the container exposes no port (write traefik'
    )
    api = found(
        container("edge", {f"{ROUTER}rule": "Host(`a`)", f"{ROUTER}service": "api@internal"}, ports=())
    )
    assert (lines(api), list(api.config.http.services)) == ([], [])
    assert api.config.http.routers["chat"].service == "api@internal"


def test_who_counts() -> None:
    plain, on, off = (
        container("a"),
        container("b", {"traefik.enable": "true"}),
        container("c", {"traefik.enable": "false"}),
    )

    def used(**options: object) -> list[str]:
        return [each.name for each in found(plain, on, off, **options).states if each.verdict == "used"]

    assert used() == ["a", "b"]
    assert used(exposed_by_default=False) == ["b"]
    assert used(constraints=parse_constraints("Label(`traefik.enable`, `true`)")) == ["b"]
    assert used(constraints=parse_constraints("!LabelRegex(`traefik.enable`, `.+`)")) == ["a"]


def test_health_and_pause() -> None:
    for changes, reason in (
        ({"health": "starting"}, "is starting"),
        ({"health": "unhealthy"}, "is unhealthy"),
        ({"paused": True}, "is paused"),
    ):
        discovered = found(container("a"), container("b", {f"{BALANCER}server.port": "1"}, **changes))
        assert [each.reason for each in discovered.states] == ["", reason]
        assert list(discovered.config.http.services) == ["a"]
    ill = container("b", {f"{BALANCER}server.port": "1"}, health="starting")
    kept = found(ill, allow_empty_services=True)
    assert (list(kept.config.http.routers), urls(kept, "chat")) == (["b"], [])
    assert urls(found(evolve(ill, health="healthy")), "chat") == ["http://10.0.0.1:1"]


NETWORKS = (("back", "10.1.0.1"), ("front", "10.2.0.1"), ("none", ""))


@pytest.mark.parametrize(
    ("labels", "option", "address", "odd"),
    [
        ({}, None, "10.1.0.1", ""),
        ({}, "front", "10.2.0.1", ""),
        ({"traefik.docker.network": "front"}, "back", "10.2.0.1", ""),
        ({}, "other", "10.1.0.1", 'is not in the network "other", so its address in "back" is used'),
        (
            {"traefik.docker.network": "none"},
            None,
            "10.1.0.1",
            'is not in the network "none", so its address in "back" is used',
        ),
    ],
)
def test_networks(labels: dict[str, str], option: str | None, address: str, odd: str) -> None:
    discovered = found(container("a", labels, networks=NETWORKS), network=option)
    assert urls(discovered, "a") == [f"http://{address}:8080"]
    assert [line.partition(" (")[0] for line in lines(discovered)] == (
        [f'container "a" traefik.docker.network: {odd}'] if odd else []
    )


def test_networks_of_others() -> None:
    host = container("host", network_mode="host", networks=(("host", ""),))
    proxy = container("proxy", ip="10.3.0.1", id="p" * 64)
    side = container("side", network_mode=f"container:{'p' * 64}", networks=())
    lost = container("lost", network_mode="container:gone", networks=())
    loop = container("loop", network_mode="container:loop", networks=())
    six = container("six", ip="fd00::1")
    discovered = discover(Found((host, proxy, side, lost, loop, six), "192.0.2.9"), DockerProvider())
    assert urls(discovered, "host") == ["http://192.0.2.9:8080"]
    assert urls(discovered, "side") == ["http://10.3.0.1:8080"]
    assert urls(discovered, "six") == ["http://[fd00::1]:8080"]
    reasons = {each.name: each.reason for each in discovered.states if each.reason}
    assert reasons == dict.fromkeys(("lost", "loop"), "shares the network of a container that is not there")


def test_bound_ports() -> None:
    bound = container(
        "a", ports=(Binding(80, "192.0.2.1", "8080"), Binding(81, "0.0.0.0", "8081"), Binding(82))
    )
    for port, url in (
        ("80", "192.0.2.1:8080"),
        ("81", "10.0.0.1:81"),
        ("82", "10.0.0.1:82"),
        ("83", "10.0.0.1:83"),
    ):
        one = evolve(bound, labels=((f"{BALANCER}server.port", port),))
        expected = url.removesuffix(":80")
        assert urls(found(one, use_bind_port_ip=True), "chat") == [f"http://{expected}"]
    assert urls(found(bound), "a") == ["http://10.0.0.1"]


def test_several_ports_and_services() -> None:
    discovered = found(
        container(
            "a",
            {
                "traefik.http.routers.web.rule": "Host(`a`)",
                "traefik.http.routers.web.service": "web",
                "traefik.http.services.web.loadbalancer.server.port": "80",
                "traefik.http.routers.admin.rule": "Host(`b`)",
                "traefik.http.routers.admin.service": "admin",
                "traefik.http.services.admin.loadbalancer.server.port": "81",
            },
        )
    )
    assert (urls(discovered, "web"), urls(discovered, "admin")) == (
        ["http://10.0.0.1"],
        ["http://10.0.0.1:81"],
    )


def test_replicas_are_servers_of_one_service() -> None:
    first = container(
        "a", {f"{BALANCER}healthcheck.path": "/h", f"{BALANCER}sticky.cookie.name": "s"}, ip="10.0.0.1"
    )
    second = container("b", {f"{BALANCER}server.port": "8080"}, ip="10.0.0.2")
    discovered = found(first, second, container("c", {f"{BALANCER}server.port": "8080"}, ip="10.0.0.2"))
    assert (lines(discovered), urls(discovered, "chat")) == (
        [],
        ["http://10.0.0.1:8080", "http://10.0.0.2:8080"],
    )
    balancer = discovered.config.http.services["chat"].load_balancer
    assert balancer is not None
    assert balancer.health_check is not None


def test_of_two_that_contradict_the_older_counts() -> None:
    old = container(
        "old",
        {
            f"{BALANCER}healthcheck.path": "/old",
            f"{ROUTER}rule": "Host(`a`)",
            f"{ROUTER}middlewares": "auth@file",
        },
    )
    new = container(
        "new",
        {f"{BALANCER}healthcheck.path": "/new", f"{ROUTER}rule": "Host(`b`)", f"{ROUTER}priority": "9"},
        ip="10.0.0.2",
    )
    discovered = found(old, new)
    assert lines(discovered) == [
        f'container "new" {label}: differs from what the container "old" says, which was created first and counts '
        "(give both the same value) [warning]"
        for label in (f"{ROUTER}rule", f"{BALANCER}healthcheck.path")
    ]
    assert urls(discovered, "chat") == ["http://10.0.0.1:8080", "http://10.0.0.2:8080"]
    router = discovered.config.http.routers["chat"]
    assert (router.rule.text, router.middlewares, router.priority) == ("Host(`a`)", ("auth",), 9)
    # Once it is gone the other's words count.
    assert found(new).config.http.routers["chat"].rule.text == "Host(`b`)"


def test_a_rule_of_its_own_goes_before_the_default_one() -> None:
    silent = container("a", {f"{BALANCER}server.port": "1", f"{ROUTER}entrypoints": "web"})
    said = container("b", {f"{BALANCER}server.port": "1", f"{ROUTER}rule": "Host(`said`)"})
    discovered = found(silent, said)
    assert (lines(discovered), discovered.config.http.routers["chat"].rule.text) == ([], "Host(`said`)")


def test_default_rule() -> None:
    template = parse_template('Host(`{{ normalize .Name }}.{{ index .Labels "tier" | default "web" }}.test`)')
    options = {"default_rule": template}
    assert (
        found(container("My_Chat", {"tier": "ws"}), **options).config.http.routers["My-Chat"].rule.text
        == "Host(`My-Chat.ws.test`)"
    )
    assert found(container("c"), **options).config.http.routers["c"].rule.text == "Host(`c.web.test`)"
    bad = found(container("c", {"tier": "`"}), **options)
    assert lines(bad)[0].startswith('container "c" traefik.http.routers.c.rule: ')


def test_a_bad_one_gives_nothing_and_its_routers_are_disabled() -> None:
    bad = container(
        "bad",
        {
            f"{ROUTER}rule": "Host(`a`)",
            "traefik.http.routers.own.rule": "Path(`/`)",
            f"{BALANCER}strategy": "x",
        },
    )
    discovered = found(container("good", {f"{ROUTER}rule": "Host(`a`)"}), bad)
    assert {each.name: each.verdict for each in discovered.states} == {"good": "used", "bad": "bad"}
    (disabled,) = discovered.disabled
    assert (disabled.name, disabled.leads_to) == ("own@docker", "chat@docker")
    assert disabled.reasons[0].startswith(f'container "bad" {BALANCER}strategy: "x" is none of the choices')
    assert list(discovered.config.http.routers) == ["chat"]


def test_what_only_shows_together_blames_the_newer() -> None:
    one = container("a", {"traefik.http.middlewares.m.compress": "true"})
    two = container(
        "b",
        {
            "traefik.http.middlewares.m.ratelimit.average": "1",
            f"{ROUTER}rule": "Host(`b`)",
            f"{ROUTER}middlewares": "m",
        },
    )
    loaded = together("http: {}", one, two)
    (disabled,) = loaded.disabled
    assert disabled.name == "chat@docker"
    assert disabled.reasons[0].startswith('container "b" traefik.http.middlewares.m: has 2 kinds')


def test_only_what_has_changed_is_read_again() -> None:
    one, two = container("a"), container("b", ip="10.0.0.2")
    before = found(one, two)
    after = discover(Found((one, evolve(two, health="unhealthy"))), before.options, before, now=7.0)
    assert after.readings[0] is before.readings[0]
    assert [each.since for each in after.states] == [0.0, 7.0]


MAIN = "providers: {docker: {}}\n"


def together(text: str, *containers: object, previous: Loaded | None = None) -> Loaded:
    main = read_document((MAIN + text).encode(), "main.yaml")
    found_now = Found(containers)  # type: ignore[arg-type]  # containers they are
    before = None if previous is None else previous.discovered
    return assemble(Sources(main, found=found_now, discovered=before), lambda _: ())


def test_references_between_files_and_containers() -> None:
    text = "http: {routers: {r: {rule: Path(`/`), service: chat@docker}}, middlewares: {limit: {inFlightReq: {amount: 1}}}}"
    loaded = together(
        text,
        container(
            "a",
            {
                f"{BALANCER}server.port": "1",
                f"{ROUTER}rule": "Path(`/a`)",
                f"{ROUTER}middlewares": "limit@file",
            },
        ),
    )
    assert (loaded.disabled, loaded.warnings) == ((), [])
    assert loaded.config.http.routers["chat@docker"].middlewares == ("limit",)
    assert set(loaded.config.http.routers) == {"r", "chat@docker"}
    assert set(together(text).config.http.routers) == set()


def test_a_container_that_cannot_be_put_to_work() -> None:
    bad = container(
        "bad",
        {
            "traefik.http.middlewares.auth.basicauth.usersfile": "/missing",
            f"{ROUTER}rule": "Path(`/`)",
            f"{ROUTER}middlewares": "auth",
        },
    )
    good = container("good", ip="10.0.0.2")
    loaded = together("http: {}", good, bad)
    assert set(loaded.config.http.middlewares) == {"auth@docker"}
    blamed = loaded.blame(["http.middlewares.auth@docker.basicAuth.usersFile: cannot be read: gone"])
    assert list(blamed) == [bad]
    without = assemble(loaded.sources, lambda _: (), blamed)
    assert without.discovered is not None
    assert [each.verdict for each in without.discovered.states] == ["used", "bad"]
    assert lines(without.discovered) == [
        'container "bad" traefik.http.middlewares.auth.basicauth.usersfile: cannot be read: gone'
    ]
    assert set(without.config.http.routers) == {"good@docker"}
    # It is so until the container is another one, and what is known of one that is gone is forgotten.
    assert list(without.refused) == [bad]
    again = refresh(without, found=Found((good,)))
    assert again is not None
    assert not again.refused
    assert refresh(again, found=Found((good,))) is None


def test_without_the_provider_there_is_nothing() -> None:
    main = read_document(b"http: {}", "main.yaml")
    loaded = assemble(Sources(main, found=Found((container(),))), lambda _: ())
    assert (loaded.discovered, loaded.config.http.services) == (None, {})
    assert isinstance(loaded.config, Config)


INSPECTED = {
    "Id": "ab12",
    "Created": "2026-01-02T03:04:05.67Z",
    "Name": "/chat-1",
    "State": {"Status": "running", "Running": True, "Paused": False, "Health": {"Status": "none"}},
    "Config": {"Labels": {"b": "2", "a": "1"}},
    "HostConfig": {"NetworkMode": "net"},
    "NetworkSettings": {
        "Ports": {"8080/tcp": None, "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}], "53/udp": None},
        "Networks": {"net": {"IPAddress": "10.0.0.1"}, "six": {"IPAddress": "", "GlobalIPv6Address": "fd00::1"}},
    },
}  # fmt: skip


def test_what_the_engine_says_of_a_container() -> None:
    one = parse_container(INSPECTED)
    assert one is not None
    assert (one.name, one.created, one.health) == ("chat-1", "2026-01-02T03:04:05.670000000", "")
    assert one.labels == (("a", "1"), ("b", "2"))
    assert one.ports == (Binding(80, "0.0.0.0", "32768"), Binding(8080))
    assert one.networks == (("net", "10.0.0.1"), ("six", "fd00::1"))
    assert parse_container({**INSPECTED, "State": {"Running": False}}) is None
    assert parse_container({**INSPECTED, "State": None}) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"Id": None}, {"Id": 5}, {"Name": ""}, {"Name": "x" * 999}, {"State": []}, {"Config": {"Labels": ["a=1"]}}, {"Config": {"Labels": {"a": 1}}},
        {"Config": {"Labels": {str(number): "" for number in range(3000)}}}, {"NetworkSettings": {"Networks": {"n": 5}, "Ports": []}},
        {"NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": 1}]}}}, {"HostConfig": "host"},
    ],
)  # fmt: skip
def test_what_is_no_container(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="has "):
        parse_container({**INSPECTED, **changes})


def test_a_problem_stands_with_the_label_that_it_is_about() -> None:
    one = container("a", {f"{BALANCER}strategy": "wrr"})
    two = container("b", {f"{BALANCER}healthcheck.path": "/h"}, ip="10.0.0.2")
    discovered = found(one, two)
    both = Finding(
        ("http", "services", "chat", "loadBalancer", "healthCheck"),
        "goes ill with",
        "leave one out",
        other=("http", "x"),
    )
    nobody = Finding(("tls", "options", "other"), "is strange", "write it otherwise")
    placed, homeless = discovered.placed([both, nobody])
    assert str(placed) == (
        'container "b" traefik.http.services.chat.loadBalancer.healthCheck: goes ill with another one (leave one out)'
    )
    assert (homeless.file, homeless.path, homeless.message) == ("docker", nobody.path, "is strange")
    # What is nobody's is everybody's: the next time one of them changes it is looked at again.
    assert discovered.blamed([placed]) == {two: [placed]}
    assert discovered.blamed([homeless]) == {one: [homeless], two: [homeless]}


def test_what_a_reading_missed_is_the_fault_of_who_said_it() -> None:
    one, two = container("a"), container("b", {"traefik.http.middlewares.m.compress": "true"}, ip="10.0.0.2")
    before = found(one, two)
    wrong, sections, middleware = MapNode(), MapNode(), MapNode()
    wrong["middlewares"], sections["m"], middleware["compress"] = sections, middleware, "surely"
    readings = (before.readings[0], evolve(before.readings[1], given=wrong))
    after = discover(before.found, before.options, evolve(before, readings=readings), now=3.0)
    assert [each.verdict for each in after.states] == ["used", "bad"]
    assert lines(after)[0].startswith(
        'container "b" traefik.http.middlewares.m.compress: "surely" is a string, not'
    )
    assert list(after.config.http.services) == ["a"]


def test_a_container_that_says_nothing_of_a_network_is_reached_where_it_has_an_address() -> None:
    networks = (("none", ""), ("back", "10.0.0.9"))
    assert urls(found(container("a", networks=networks)), "a") == ["http://10.0.0.9:8080"]
    lost = found(container("a", networks=(("none", ""),)))
    assert [each.reason for each in lost.states] == ["has no address in any network"]


def test_a_label_that_is_too_long_is_passed_over() -> None:
    document: dict[str, object] = {
        "Id": "a" * 64,
        "Name": "/web",
        "State": {"Running": True},
        "Config": {"Labels": {"traefik.enable": "true", "novel": "x" * 10_000_000}},
        "HostConfig": {"NetworkMode": "net"},
        "NetworkSettings": {"Ports": {}, "Networks": {"net": {"IPAddress": "10.0.0.1"}}},
    }
    parsed = parse_container(document)
    assert parsed is not None
    assert parsed.labels == (("traefik.enable", "true"),)
