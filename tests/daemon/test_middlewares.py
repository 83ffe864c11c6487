"""From middlewares in a file to the steps of routers, and what survives a reload."""

from __future__ import annotations

import random
from pathlib import Path
from textwrap import dedent, indent

import pytest
import trio
import trio.testing

from tests.config.helpers import config
from tests.middleware.helpers import request
from trio_wsb.config.model import Config
from trio_wsb.daemon.middlewares import StepFactory, load_files
from trio_wsb.errors import ConfigurationError
from trio_wsb.middleware.exchange import Answer
from trio_wsb.proxy.chain import Passage, Step

ONE_OF_EACH = """\
add: {addPrefix: {prefix: /a}}
auth: {forwardAuth: {address: "http://127.0.0.1:1/"}}
basic: {basicAuth: {users: ["ada:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="]}}
breaker: {circuitBreaker: {expression: "NetworkErrorRatio() > 0.5"}}
compress: {compress: {}}
flight: {inFlightReq: {amount: 1}}
from: {ipAllowList: {sourceRange: ["192.0.2.0/24"]}}
headers: {headers: {customRequestHeaders: {X-Set: "1"}}}
origin: {originAllowList: {origins: ["https://page"]}}
rate: {rateLimit: {average: 1, period: 1m}}
regex: {redirectRegex: {regex: "^x$", replacement: "y"}}
replace: {replacePath: {path: /new}}
replaceregex: {replacePathRegex: {regex: "^/x", replacement: /y}}
retry: {retry: {attempts: 2}}
scheme: {redirectScheme: {scheme: https}}
strip: {stripPrefix: {prefixes: [/api]}}
stripregex: {stripPrefixRegex: {regex: ["/v[0-9]+"]}}
"""

STATEFUL = ("basic", "breaker", "flight", "rate")


def made(middlewares: str, *routers: str) -> Config:
    """Return a configuration with these middlewares, and a router for each list of names."""
    rows = [
        f"{{rule: PathPrefix(`/{number}`), service: chat, middlewares: [{names}]}}"
        for number, names in enumerate(routers)
    ]
    text = dedent(
        """\
        entryPoints: {web: {address: "127.0.0.1:9000"}}
        http:
          services: {chat: {loadBalancer: {servers: [{url: "http://10.0.0.1:8080"}]}}}
        """
    )
    text += "  middlewares:\n" + indent(middlewares, "    ") + "  routers:\n"
    return config(text + "".join(f"    r{number}: {row}\n" for number, row in enumerate(rows)))


class Reloads:
    """A factory that is asked again and again, as by reloads."""

    def __init__(self) -> None:
        self._factory = StepFactory(random.Random(1))

    def load(self, middlewares: str, *routers: str) -> list[tuple[Step, ...]]:
        """Return the steps of each router."""
        made_config = made(middlewares, *routers)
        chains = self._factory.chains(made_config, load_files(made_config))
        return [chains["web", f"r{number}"] for number in range(len(routers))]


async def status(step: Step, headers: list[tuple[str, str]] | None = None) -> int:
    """Return the status that a request gets from `step`, 0 when it passes."""
    answer: Answer | None = await step.take(Passage(request("/", headers or [])))
    return 0 if answer is None else answer.status


def test_every_kind_has_a_step() -> None:
    names = [line.partition(":")[0] for line in ONE_OF_EACH.splitlines()]
    [steps] = Reloads().load(ONE_OF_EACH, ", ".join(names))
    assert len(steps) == len(names)


def test_steps_are_in_the_order_of_the_names_with_chains_laid_flat() -> None:
    text = (
        ONE_OF_EACH + "one: {chain: {middlewares: [add, two]}}\ntwo: {chain: {middlewares: [strip, retry]}}\n"
    )
    nested, flat = Reloads().load(text, "rate, one, compress", "rate, add, strip, retry, compress")
    assert nested == flat


def test_a_router_without_middlewares_has_no_steps() -> None:
    assert Reloads().load(ONE_OF_EACH, "", "") == [(), ()]


def test_routers_share_what_they_name_but_for_breakers() -> None:
    first, second = Reloads().load(ONE_OF_EACH, "rate, flight, breaker", "rate, flight, breaker")
    assert [one is other for one, other in zip(first, second, strict=True)] == [True, True, False]


@pytest.mark.parametrize("name", STATEFUL)
def test_a_reload_that_changes_other_things_keeps_the_step(name: str) -> None:
    reloads = Reloads()
    [(before,)] = reloads.load(ONE_OF_EACH, name)
    changed = ONE_OF_EACH.replace("/a}", "/b}")
    [(after,), *_] = reloads.load(changed, name, "add")
    assert after is before


def test_a_change_of_options_starts_anew() -> None:
    reloads = Reloads()
    before = reloads.load(ONE_OF_EACH, ", ".join(STATEFUL))[0]
    changed = (
        ONE_OF_EACH.replace("average: 1,", "average: 2,")
        .replace("amount: 1", "amount: 2")
        .replace("> 0.5", "> 0.6")
        .replace("ada:", "bob:")
    )
    after = reloads.load(changed, ", ".join(STATEFUL))[0]
    assert not any(one is other for one, other in zip(before, after, strict=True))


def test_another_name_is_another_step() -> None:
    reloads = Reloads()
    [(before,)] = reloads.load(ONE_OF_EACH, "rate")
    [(after,)] = reloads.load(ONE_OF_EACH.replace("rate:", "rate2:"), "rate2")
    assert after is not before


async def test_a_bucket_survives_a_reload(autojump_clock: trio.testing.MockClock) -> None:
    reloads = Reloads()
    [(before,)] = reloads.load(ONE_OF_EACH, "rate")
    assert [await status(before), await status(before)] == [0, 429]
    [(same,), _] = reloads.load(ONE_OF_EACH, "rate", "add")
    assert await status(same) == 429
    [(changed,)] = reloads.load(ONE_OF_EACH.replace("period: 1m", "period: 2m"), "rate")
    assert await status(changed) == 0


async def test_what_is_in_flight_survives_a_reload_and_is_given_back_where_it_was_taken() -> None:
    reloads = Reloads()
    [(before,)] = reloads.load(ONE_OF_EACH, "flight")
    session = Passage(request("/"))
    await session.run([before])
    [(same,)] = reloads.load(ONE_OF_EACH, "flight")
    assert await status(same) == 429
    [(changed,)] = reloads.load(ONE_OF_EACH.replace("amount: 1", "amount: 3"), "flight")
    assert await status(changed) == 0
    session.remains.end()
    session.remains.end()
    assert await status(same) == 0


async def test_users_of_a_file_that_changed_count_after_a_reload(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("ada:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n")
    text = f"basic: {{basicAuth: {{usersFile: {path}}}}}\n"
    reloads = Reloads()
    credentials = [("Authorization", "Basic YWRhOnBhc3N3b3Jk")]
    [(before,)] = reloads.load(text, "basic")
    assert await status(before, credentials) == 0
    [(same,)] = reloads.load(text, "basic")
    assert same is before
    path.write_text("bob:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n")
    [(after,)] = reloads.load(text, "basic")
    assert await status(after, credentials) == 401


def test_files_that_cannot_be_used_are_all_named(tmp_path: Path) -> None:
    wrong, bad = tmp_path / "wrong", tmp_path / "bad.pem"
    wrong.write_text("ada:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\nnobody\n")
    bad.write_text("no certificate")
    text = f"""\
gone: {{basicAuth: {{usersFile: {tmp_path}/gone}}}}
wrong: {{basicAuth: {{usersFile: {wrong}}}}}
tls: {{forwardAuth: {{address: "https://127.0.0.1:1/", tls: {{ca: {bad}}}}}}}
"""
    with pytest.raises(ConfigurationError) as caught:
        load_files(made(text, "gone"))
    gone, line, tls = caught.value.problems
    assert gone == "http.middlewares.gone.basicAuth.usersFile: cannot be read: No such file or directory"
    assert line.startswith(f"http.middlewares.wrong.basicAuth.usersFile: {wrong}:2: ")
    assert tls.startswith("http.middlewares.tls.forwardAuth.tls: cannot be used: ")
