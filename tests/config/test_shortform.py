from __future__ import annotations

from tests.config.helpers import config, document, problems
from trio_wsb.addresses import ListenAddress
from trio_wsb.config.model import Config
from trio_wsb.config.validate import Names
from trio_wsb.routing.rules import parse_rule

SEED = """\
wsbalancer:
  metricPath: "/metric"
  pods:
    - "http://backend1:8080"
    - "http://backend2:8080"
  tlsVerify: true
  cacheTTL: "30s"
  dialTimeout: "10s"
  writeTimeout: "10s"
  readTimeout: "30s"
"""


def test_the_seeds_block_and_the_defaults_mean_the_same() -> None:
    assert config(SEED) == config("wsbalancer: {pods: ['http://backend1:8080', 'http://backend2:8080']}")


def test_services_is_the_same_key() -> None:
    assert config(SEED) == config(SEED.replace("pods:", "services:"))


def test_the_long_form_of_it() -> None:
    assert config("""\
wsbalancer:
  pods: [http://a, wss://b]
  metricPath: /count
  balancerMetricPath: /table
  tlsVerify: false
  cacheTTL: 1m
  dialTimeout: 1
  writeTimeout: 2
  readTimeout: 500ms
  listen: ":80"
""") == config("""\
entryPoints:
  admin: {address: "127.0.0.1:9001"}
  web:
    address: ":80"
    transport: {respondingTimeouts: {readTimeout: 0.5}}
balancerMetricPath: /table
http:
  routers:
    wsbalancer: {rule: PathPrefix(`/`), service: wsbalancer}
  services:
    wsbalancer:
      loadBalancer:
        servers: [{url: http://a:80}, {url: https://b:443}]
        serversTransport: wsbalancer
        connectionCount: {path: /count, interval: 60}
        session: {writeTimeout: 2s}
  serversTransports:
    wsbalancer:
      insecureSkipVerify: true
      forwardingTimeouts: {dialTimeout: 1s, responseHeaderTimeout: 500ms}
""")


def test_the_default_entry_points() -> None:
    entry_points = config(SEED).entry_points
    assert {name: str(each.address) for name, each in entry_points.items()} == {
        "web": "127.0.0.1:9000",
        "admin": "127.0.0.1:9001",
    }
    assert config("{}") == Config()


def test_listen_may_stand_at_the_top() -> None:
    assert config(SEED + "listen: '[::1]:80'") == config(SEED + "  listen: '[::1]:80'")
    assert config("listen: ':80'").entry_points["web"].address == ListenAddress("", 80)


def test_listen_goes_with_other_entry_points() -> None:
    entry_points = config(SEED + "listen: ':80'\nentryPoints: {other: {address: ':81'}}").entry_points
    assert {name: str(each.address) for name, each in entry_points.items()} == {"web": ":80", "other": ":81"}


def test_a_written_entry_point_is_taken_as_it_is() -> None:
    long = "entryPoints: {web: {address: ':80', transport: {respondingTimeouts: {readTimeout: 5s}}}}\n"
    entry_points = config(SEED + long).entry_points
    assert list(entry_points) == ["web"]
    assert entry_points["web"].transport.responding_timeouts.read_timeout == 5.0


def test_other_sections_stand_beside_it() -> None:
    both = config(
        SEED
        + """\
http:
  routers: {extra: {rule: Path(`/x`), service: wsbalancer, entryPoints: [web]}}
  services: {other: {loadBalancer: {servers: [{url: http://c}], serversTransport: wsbalancer}}}
ping: {entryPoint: web}
log: {level: DEBUG}
"""
    )
    assert list(both.http.routers) == ["wsbalancer", "extra"]
    assert both.http.routers["wsbalancer"].rule == parse_rule("PathPrefix(`/`)")
    assert list(both.http.services) == ["wsbalancer", "other"]
    assert both.log.level == "DEBUG"


def test_its_names_can_be_referred_to_while_it_is_broken() -> None:
    text = "wsbalancer: {pods: [5]}\nping: {entryPoint: web}\nhttp: {routers: {r: {rule: Path(`/`), service: wsbalancer}}}"
    assert [each.key_path for each in problems(text)] == ["wsbalancer.pods[0]"]
    assert document(text).names == Names(
        frozenset({"web", "admin"}), frozenset({"wsbalancer"}), frozenset({"wsbalancer"})
    )


def test_an_address_that_is_lost_is_not_taken_for_the_default() -> None:
    text = "listen: nowhere\nentryPoints: {other: {address: '127.0.0.1:9000'}}\n" + SEED
    assert [each.key_path for each in problems(text)] == ["listen"]
