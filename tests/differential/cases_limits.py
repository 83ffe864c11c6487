"""Middlewares that count and that refuse: addresses, rates, what is in flight, circuit breakers, retries."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.record import Ask, Difference, case, get, post, times, ws
from tests.differential.world import TRUSTED

MIDDLEWARES: Final[dict[str, Any]] = {
    "deny": {"ipAllowList": {"sourceRange": ["10.0.0.0/8"]}},
    "allow": {"ipAllowList": {"sourceRange": ["127.0.0.0/8"]}},
    "allow-one": {"ipAllowList": {"sourceRange": ["127.0.0.2"]}},
    "deny-404": {"ipAllowList": {"sourceRange": ["10.0.0.0/8"], "rejectStatusCode": 404}},
    "allow-depth": {"ipAllowList": {"sourceRange": ["1.2.3.4"], "ipStrategy": {"depth": 2}}},
    "allow-excluded": {"ipAllowList": {"sourceRange": ["1.2.3.4"], "ipStrategy": {"excludedIPs": ["5.6.7.0/24"]}}},
    **{
        name: {"rateLimit": options}
        for name, options in {
            "rate-1": {"average": 1, "period": "1m", "burst": 2},
            "rate-2": {"average": 1, "period": "1m"},
            "rate-3": {"average": 1, "period": "1m"},
            "rate-4": {"average": 1, "period": "1m", "sourceCriterion": {"requestHeaderName": "X-Key"}},
            "rate-5": {"average": 1, "period": "1m", "sourceCriterion": {"requestHost": True}},
            "rate-6": {"average": 1, "period": "1m"},
            "rate-7": {"average": 1, "period": "1m", "sourceCriterion": {"ipStrategy": {"depth": 1}}},
            "rate-8": {"average": 1, "period": "1h", "burst": 1},
            "rate-9": {"average": 1, "period": "1m"},
            "rate-off": {"average": 0},
            "rate-ms": {"average": 2, "burst": 1},
        }.items()
    },
    "flight-1": {"inFlightReq": {"amount": 1}},
    "flight-2": {"inFlightReq": {"amount": 2}},
    "flight-3": {"inFlightReq": {"amount": 1, "sourceCriterion": {"ipStrategy": {"depth": 0}}}},
    "flight-4": {"inFlightReq": {"amount": 1, "sourceCriterion": {"requestHeaderName": "X-Key"}}},
    "flight-5": {"inFlightReq": {"amount": 2}},
    "breaker-1": {"circuitBreaker": {"expression": "NetworkErrorRatio() > 0.3", "checkPeriod": "1ms"}},
    "breaker-2": {"circuitBreaker": {"expression": "ResponseCodeRatio(500, 600, 0, 600) > 0.3", "checkPeriod": "1ms"}},
    "breaker-3": {"circuitBreaker": {"expression": "NetworkErrorRatio() > 0.3", "checkPeriod": "1ms", "responseCode": 504}},
    "breaker-4": {"circuitBreaker": {"expression": "ResponseCodeRatio(400, 500, 0, 600) > 0.9", "checkPeriod": "1ms"}},
    "breaker-5": {"circuitBreaker": {"expression": "LatencyAtQuantileMS(50.0) > 20000", "checkPeriod": "1ms"}},
    "retry": {"retry": {"attempts": 3}},
    "retry-pause": {"retry": {"attempts": 2, "initialInterval": "10ms"}},
}  # fmt: skip

SERVICES: Final[dict[str, Any]] = {}

CASES: Final = [
    case("address allowed", get(), through="allow"),
    case("address allowed for a handshake", ws(), through="allow"),
    case("address not allowed", get(), through="deny"),
    case("address not allowed for a handshake", ws(), through="deny"),
    case("address not allowed with another status", get(), through="deny-404"),
    case("one address", get(), get(source=TRUSTED), through="allow-one"),
    case("address forged", get("/", "X-Forwarded-For: 10.0.0.1"), through="deny"),
    case("address at a depth", get("/", "X-Forwarded-For: 1.2.3.4, 5.6.7.8", source=TRUSTED), through="allow-depth"),
    case("address at a depth that is not there", get("/", "X-Forwarded-For: 1.2.3.4", source=TRUSTED), through="allow-depth"),
    case("address at a depth, forged", get("/", "X-Forwarded-For: 1.2.3.4, 5.6.7.8"), through="allow-depth"),
    case("address but for the excluded", get("/", "X-Forwarded-For: 1.2.3.4, 5.6.7.8", source=TRUSTED), through="allow-excluded"),
    case("rate limit with a burst", *times(4, get()), through="rate-1"),
    case("rate limit", get(), get(), through="rate-2"),
    case("rate limit of handshakes", ws(), ws(), through="rate-3"),
    case("rate limit by a field", get("/", "X-Key: a"), get("/", "X-Key: b"), get("/", "X-Key: a"), through="rate-4"),
    case("rate limit by host", get(), get(source=TRUSTED), through="rate-5"),
    case("rate limit by address", get(), get(source=TRUSTED), get(), through="rate-6"),
    case("rate limit at a depth", *(get("/", f"X-Forwarded-For: {ip}", source=TRUSTED) for ip in ("1.1.1.1", "2.2.2.2", "1.1.1.1")), through="rate-7"),
    case("rate limit for an hour", get(), get(), through="rate-8"),
    case("rate limit with fields", get(), get(), through=("h-response", "rate-9")),
    case("rate limit off", *times(5, get()), through="rate-off"),
    case("rate limit of milliseconds", get(), get(), through="rate-ms"),
    case("in flight at the limit, one after the other", ws(hold=True), *times(20, get()), *times(5, post(b"x")), through="flight-5"),
    case("in flight beside a session", ws(hold=True), get(), ws(), through="flight-1"),
    case("in flight beside two sessions", ws(hold=True), ws(hold=True), ws(), through="flight-2"),
    case("in flight by address", ws(hold=True), ws(source=TRUSTED), ws(), through="flight-3"),
    case("in flight by a field", ws("/", "X-Key: a", hold=True), ws("/", "X-Key: b"), ws("/", "X-Key: a"), through="flight-4"),
    case("breaker by network errors", get(), get(), get(), through="breaker-1", service="dead"),
    case("breaker by status", get(answer="broken"), get(), through="breaker-2"),
    case("breaker by status of handshakes", ws(answer="broken"), ws(), through="breaker-2b"),
    case("breaker with another status", ws(), ws(), through="breaker-3", service="dead"),
    case("breaker that stays closed", get(), get(answer="broken"), get(answer="missing"), get(), through="breaker-4"),
    case("breaker by latency", get(), ws(), get(), through="breaker-5"),
    case("retry of a dead server", get(), through="retry", service="dead"),
    case("retry with a pause", get(), through="retry-pause", service="dead"),
    case("retry of what is well", post(b"x"), through="retry"),
    case("retry of an error of the backend", get(answer="broken"), through="retry"),
    case("retry of a handshake", ws(), through="retry"),
    case("retry of a refused handshake", ws(answer="unavailable"), through="retry"),
    case("retry of a connection that ends", get(answer="die"), through="retry", service="flaky", differs=[Difference("retry-silence", "app.[12] *", None)]),
    case("retry of a connection that ends at a handshake", ws(answer="die"), through="retry", service="flaky", differs=[Difference("retry-silence", "app.[12] *", None)]),
    case("retry of a post whose connection ends", post(b"x", answer="die"), through="retry", service="flaky"),
    case("host is what counts", Ask("GET", "/", host="nobody.test"), through="rate-2"),
]  # fmt: skip

MIDDLEWARES["breaker-2b"] = MIDDLEWARES["breaker-2"]
