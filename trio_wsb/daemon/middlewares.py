"""From the middlewares of a configuration to the steps of each router's chain.

What a middleware remembers (buckets, what is in flight, a breaker's figures) belongs to its name and its options: it
survives every reload that leaves these unchanged, and starts anew with one that changes them.
"""

from __future__ import annotations

import random
import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from attrs import frozen

from trio_wsb.config.middlewares import Middleware
from trio_wsb.config.model import Config
from trio_wsb.config.offered import routers_on
from trio_wsb.errors import ConfigurationError
from trio_wsb.http.answers import NOT_FOUND
from trio_wsb.middleware.basic_auth import BasicAuth, BasicAuthOptions, CredentialCache
from trio_wsb.middleware.breaker import CircuitBreaker, CircuitBreakerOptions
from trio_wsb.middleware.compress import Compress, CompressOptions
from trio_wsb.middleware.exchange import Answer, Request
from trio_wsb.middleware.forward_auth import ForwardAuth, ForwardAuthOptions
from trio_wsb.middleware.header_options import HeadersOptions
from trio_wsb.middleware.headers import HeaderEditor
from trio_wsb.middleware.htpasswd import User, by_name, parse_users
from trio_wsb.middleware.in_flight import InFlightLimiter, InFlightReqOptions
from trio_wsb.middleware.ip_allow import IPAllowList, IPAllowListOptions
from trio_wsb.middleware.origin import OriginAllowList, OriginAllowListOptions
from trio_wsb.middleware.path import (
    AddPrefix,
    AddPrefixOptions,
    ReplacePath,
    ReplacePathOptions,
    ReplacePathRegex,
    ReplacePathRegexOptions,
    StripPrefix,
    StripPrefixOptions,
    StripPrefixRegex,
    StripPrefixRegexOptions,
)
from trio_wsb.middleware.rate_limit import RateLimiter, RateLimitOptions
from trio_wsb.middleware.redirect import (
    RedirectRegex,
    RedirectRegexOptions,
    RedirectScheme,
    RedirectSchemeOptions,
)
from trio_wsb.middleware.retry import RetryOptions, pauses
from trio_wsb.middleware.source import Source
from trio_wsb.net.tls import client_context
from trio_wsb.proxy.chain import RetryPolicy, Step
from trio_wsb.proxy.steps import (
    BasicAuthStep,
    BreakerStep,
    CompressStep,
    ForwardAuthStep,
    HeadersStep,
    InFlightStep,
    JudgeStep,
    RateLimitStep,
    RequestStep,
    RetryStep,
)

Loaded = Mapping[str, Any]
"""What `load_files` read, by the middleware's name: users of basicAuth, TLS contexts of forwardAuth."""

_PURE: Mapping[type, Callable[[Any], Step]] = {
    AddPrefixOptions: lambda options: RequestStep(AddPrefix(options).on_request),
    CompressOptions: lambda options: CompressStep(Compress(options)),
    HeadersOptions: lambda options: HeadersStep(HeaderEditor(options)),
    IPAllowListOptions: lambda options: JudgeStep(IPAllowList(options)),
    OriginAllowListOptions: lambda options: JudgeStep(OriginAllowList(options)),
    RedirectRegexOptions: lambda options: RequestStep(RedirectRegex(options).on_request),
    RedirectSchemeOptions: lambda options: RequestStep(RedirectScheme(options).on_request),
    ReplacePathOptions: lambda options: RequestStep(ReplacePath(options).on_request),
    ReplacePathRegexOptions: lambda options: RequestStep(ReplacePathRegex(options).on_request),
    StripPrefixOptions: lambda options: RequestStep(StripPrefix(options).on_request),
    StripPrefixRegexOptions: lambda options: RequestStep(StripPrefixRegex(options).on_request),
}


def load_files(config: Config) -> dict[str, Any]:
    """Read what middlewares name in files; takes its time, so call it off the event loop.

    Raises:
      ConfigurationError: with everything that cannot be read or understood.

    """
    loaded: dict[str, Any] = {}
    problems: list[str] = []
    for name, middleware in config.http.middlewares.items():
        options = middleware.options
        if isinstance(options, BasicAuthOptions):
            loaded[name] = _load_users(options, f"http.middlewares.{name}.basicAuth.usersFile", problems)
        elif isinstance(options, ForwardAuthOptions):
            loaded[name] = _load_tls(options, f"http.middlewares.{name}.forwardAuth.tls", problems)
    if problems:
        raise ConfigurationError(problems)
    return loaded


def _load_users(options: BasicAuthOptions, place: str, problems: list[str]) -> dict[str, User]:
    if options.users_file is None:
        return by_name(options.users)
    try:
        users, wrong = parse_users(Path(options.users_file).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{place}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}")
        return {}
    problems += [f"{place}: {options.users_file}:{line}: {what}" for line, what in wrong]
    return by_name(options.users, users)


def _load_tls(options: ForwardAuthOptions, place: str, problems: list[str]) -> ssl.SSLContext | bool:
    if options.address.scheme != "https":
        return False
    tls = options.tls
    try:
        context = client_context(
            verify=not tls.insecure_skip_verify, root_cas=() if tls.ca is None else (tls.ca,)
        )
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except OSError as error:  # ssl.SSLError is one
        problems.append(f"{place}: cannot be used: {error.strerror or getattr(error, 'reason', error)}")
        return True
    return context


@frozen
class MadeStep:
    """A step in force: whose it is. `router` is "" for one that all routers share."""

    middleware: str
    kind: str
    router: str
    step: Step


Chains = Mapping[tuple[str, str], tuple[Step, ...]]
"""Steps by the names of an entry point and a router on it, "" for requests that come to no router."""


class Closed:
    """Stands for middlewares that cannot be used: nothing passes, as though nothing were there."""

    def judge(self, _: Request) -> Answer:
        """Return the refusal."""
        return Answer(
            404, NOT_FOUND, (("Content-Type", "text/plain; charset=utf-8"),), f"{NOT_FOUND}\n".encode()
        )


def is_open(config: Config, names: Sequence[str]) -> bool:
    """Whether all the middlewares `names` of an entry point can be used."""
    defined = config.http.middlewares
    return all(
        name in defined and ((chain := defined[name].chain) is None or is_open(config, chain.middlewares))
        for name in names
    )


class StepFactory:
    """Makes the steps of middlewares, and keeps what they remember from one reload to the next."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._salt = secrets.token_bytes(32)
        self._made: dict[tuple[str, str], tuple[object, object, Step]] = {}

    def chains(self, config: Config, loaded: Loaded) -> Chains:
        """Return the steps of every way through `config`: from an entry point to a router's service.

        Args:
          config: checked: no chain leads back to itself, and every name that a router has is defined.
          loaded: what `load_files` returned for it.

        """
        made: dict[tuple[str, str], tuple[object, object, Step]] = {}
        defined = config.http.middlewares

        def steps(names: Sequence[str], router: str) -> Iterator[Step]:
            for name in _flat(names, defined):
                options, extra = defined[name].options, loaded.get(name)
                # A breaker judges the backends of its router; everything else is one for all who name it.
                place = router if isinstance(options, CircuitBreakerOptions) else ""
                known = made.get((name, place)) or self._made.get((name, place))
                if known is None or known[:2] != (options, extra):
                    known = (options, extra, self._make(name, options, extra))
                made[name, place] = known
                yield known[2]

        chains: dict[tuple[str, str], tuple[Step, ...]] = {}
        for entry_name, entry in config.entry_points.items():
            first = entry.http.middlewares
            if not is_open(config, first):
                chains[entry_name, ""] = (JudgeStep(Closed()),)
                continue
            chains[entry_name, ""] = tuple(steps(first, ""))
            for name, router in routers_on(config, entry_name):
                chains[entry_name, name] = (*steps(first, name), *steps(router.middlewares, name))
        self._made = made
        return chains

    def made(self, config: Config) -> list[MadeStep]:
        """Return the steps of the last `chains`, which was given `config`."""
        return [
            MadeStep(name, next(config.http.middlewares[name].kinds())[0], place, step)
            for (name, place), (_, _, step) in self._made.items()
            if name in config.http.middlewares
        ]

    def _make(self, name: str, options: Any, extra: Any) -> Step:
        pure = _PURE.get(type(options))
        if pure is not None:
            return pure(options)
        match options:
            case RateLimitOptions():
                return RateLimitStep(RateLimiter(options), Source(options.source_criterion))
            case InFlightReqOptions():
                return InFlightStep(InFlightLimiter(options.amount), Source(options.source_criterion))
            case CircuitBreakerOptions():
                return BreakerStep(name, CircuitBreaker(options, self._rng))
            case BasicAuthOptions():
                return BasicAuthStep(BasicAuth(options, extra, CredentialCache(self._salt)))
            case ForwardAuthOptions():
                return ForwardAuthStep(name, ForwardAuth(options), extra, options.max_response_body_size)
            case RetryOptions():
                return RetryStep(RetryPolicy(options.attempts, partial(pauses, options, self._rng)))
        raise AssertionError(f"no step for {type(options).__name__}")


def _flat(names: Sequence[str], defined: Mapping[str, Middleware]) -> Iterator[str]:
    for name in names:
        chain = defined[name].chain
        if chain is None:
            yield name
        else:
            yield from _flat(chain.middlewares, defined)
