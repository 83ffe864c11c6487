"""The example files for Traefik and for us behind it fit each other; no Traefik is needed to see that."""

from __future__ import annotations

from typing import Any

from tests.traefik.harness import ETC, read
from trio_wsb.config.load import load
from trio_wsb.config.model import ForwardingTimeouts
from trio_wsb.units import parse_duration

OURS = load(ETC / "trio-wsb-behind-traefik.yaml").config
WEB = OURS.entry_points["web"]
DYNAMIC = read(ETC / "traefik/dynamic/trio-wsb.yml", variants=True)
SERVICE = DYNAMIC["http"]["services"]["trio-wsb"]["loadBalancer"]


def seconds(text: Any) -> float:
    return parse_duration(text)


def test_the_service_is_our_entry_point() -> None:
    assert SERVICE["servers"][0] == {"url": f"http://{WEB.address}"}


def test_the_health_check_notices_a_stop_before_the_listener_closes() -> None:
    check = SERVICE["healthCheck"]
    notices = seconds(check["interval"]) + seconds(check["timeout"])
    assert notices < WEB.transport.life_cycle.request_accept_grace_timeout


def test_tries_go_on_for_longer_than_a_restart_takes() -> None:
    retry = DYNAMIC["http"]["middlewares"]["try-again"]["retry"]
    first = seconds(retry["initialInterval"])
    # Pauses grow by half up to twice the first one, and chance makes them shorter by a third at the worst.
    pauses = [min(first * 1.5**count, 2 * first) for count in range(retry["attempts"] - 1)]
    assert sum(pauses) * 2 / 3 > WEB.transport.life_cycle.grace_time_out


def test_our_timeouts_end_before_or_after_traefiks_as_the_comments_say() -> None:
    forwarding = DYNAMIC["http"]["serversTransports"]["trio-wsb"]["forwardingTimeouts"]
    assert seconds(forwarding["idleConnTimeout"]) < WEB.transport.responding_timeouts.idle_timeout
    ours = ForwardingTimeouts()
    assert OURS.http.servers_transports == {}
    assert seconds(forwarding["responseHeaderTimeout"]) > ours.dial_timeout + ours.response_header_timeout


def test_what_is_commented_out_is_all_that_the_variants_add() -> None:
    plain = read(ETC / "traefik/dynamic/trio-wsb.yml")
    wanted = read(ETC / "traefik/dynamic/trio-wsb.yml", variants=True)
    service = wanted["http"]["services"]["trio-wsb"]["loadBalancer"]
    del wanted["tls"], wanted["http"]["routers"]["chat-secure"], service["healthCheck"], service["servers"][1]
    assert plain == wanted
    plain = read(ETC / "traefik/traefik.yml")
    wanted = read(ETC / "traefik/traefik.yml", variants=True)
    web = wanted["entryPoints"]["web"]
    del wanted["entryPoints"]["websecure"], web["forwardedHeaders"], web["http"]
    assert plain == wanted


def test_traefik_neither_calls_home_nor_shows_its_insides_to_strangers() -> None:
    static = read(ETC / "traefik/traefik.yml")
    assert static["global"] == {"checkNewVersion": False, "sendAnonymousUsage": False}
    assert static["entryPoints"]["traefik"]["address"].startswith("127.0.0.1:")
