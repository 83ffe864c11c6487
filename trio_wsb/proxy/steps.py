"""The steps of a chain: the pure middlewares with what they need of the world, which is time and threads."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Protocol

import httpx
import structlog
import trio

from trio_wsb.http.headers import Headers
from trio_wsb.middleware.basic_auth import BasicAuth
from trio_wsb.middleware.breaker import CircuitBreaker
from trio_wsb.middleware.compress import Compress
from trio_wsb.middleware.exchange import Answer, Request
from trio_wsb.middleware.forward_auth import ForwardAuth, Question
from trio_wsb.middleware.headers import HeaderEditor
from trio_wsb.middleware.in_flight import InFlightLimiter
from trio_wsb.middleware.rate_limit import RateLimiter, Reject, Wait
from trio_wsb.middleware.source import Source
from trio_wsb.proxy.chain import Outcome, Passage, RetryPolicy

log = structlog.stdlib.get_logger("trio_wsb.middleware")

VERIFYING_AT_ONCE = 2
"""Passwords verified at a time: one bcrypt takes a processor for 50 to 200 ms."""

VERIFYING_QUEUED = 64
"""Requests that wait for it; one more is told 503, or strangers with wrong passwords could pile up without end."""


AUTH_TIMEOUT = 30.0
"""Seconds that an authentication server may take, Traefik's figure."""


class Judge(Protocol):
    """A middleware that only says no."""

    def judge(self, request: Request) -> Answer | None:
        """Return the refusal, or None."""
        ...


class JudgeStep:
    """ipAllowList and originAllowList."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    async def take(self, passage: Passage) -> Answer | None:
        return self._judge.judge(passage.request)


class RequestStep:
    """The middlewares that rewrite the request or redirect it: paths, redirections."""

    def __init__(self, on_request: Callable[[Request], Request | Answer | None]) -> None:
        self._on_request = on_request

    async def take(self, passage: Passage) -> Answer | None:
        found = self._on_request(passage.request)
        if isinstance(found, Request):
            passage.request = found
            return None
        return found


class HeadersStep:
    """headers: fields of the request and of whatever answers it, the 101 included."""

    def __init__(self, editor: HeaderEditor) -> None:
        self._editor = editor

    async def take(self, passage: Passage) -> Answer | None:
        found = self._editor.on_request(passage.request)
        if isinstance(found, Answer):
            return found
        passage.request = found
        passage.edit_response(lambda headers: self._editor.on_response(found, headers))
        return None


class RateLimitStep:
    """rateLimit: a request short of a token waits a moment or is refused."""

    def __init__(self, limiter: RateLimiter, source: Source) -> None:
        self.limiter = limiter
        self._source = source

    async def take(self, passage: Passage) -> Answer | None:
        verdict = self.limiter.take(self._source.key(passage.request), trio.current_time())
        if isinstance(verdict, Reject):
            return verdict.answer()
        if isinstance(verdict, Wait):
            await trio.sleep(verdict.seconds)
        return None


class InFlightStep:
    """inFlightReq: a session counts for its whole life."""

    def __init__(self, limiter: InFlightLimiter, source: Source) -> None:
        self.limiter = limiter
        self._source = source

    async def take(self, passage: Passage) -> Answer | None:
        key = self._source.key(passage.request)
        if not self.limiter.acquire(key):
            return self.limiter.refusal()
        passage.at_end(lambda: self.limiter.release(key))
        return None


class BreakerStep:
    """circuitBreaker: judged on the handshake or the head of the answer, never on the life of a session."""

    def __init__(self, name: str, breaker: CircuitBreaker) -> None:
        self._name = name
        self.breaker = breaker

    async def take(self, passage: Passage) -> Answer | None:
        admitted = trio.current_time()
        ticket = self.breaker.admit(admitted)
        if ticket is None:
            return self.breaker.refusal()

        def record(outcome: Outcome) -> None:
            now = trio.current_time()
            opened = self.breaker.record(
                ticket, now, outcome.status, now - admitted, network_error=outcome.network_error
            )
            if opened:
                log.warning("circuit breaker opened", middleware=self._name)

        passage.judge(record)
        return None


class BasicAuthStep:
    """basicAuth: passwords are verified in a thread, since one bcrypt takes as long as a thousand messages."""

    def __init__(self, auth: BasicAuth) -> None:
        self._auth = auth
        self._places = trio.CapacityLimiter(VERIFYING_AT_ONCE)

    async def take(self, passage: Passage) -> Answer | None:
        auth, request = self._auth, passage.request
        credentials = auth.credentials(request)
        if credentials is None:
            return auth.refusal()
        passage.record.username = credentials.user.decode("utf-8", "replace")
        if not auth.remembered(credentials, trio.current_time()):
            if self._places.statistics().tasks_waiting >= VERIFYING_QUEUED:
                return Answer(503, "too many passwords to verify", (("Retry-After", "1"),))
            if not await trio.to_thread.run_sync(auth.verify, credentials, limiter=self._places):
                return auth.refusal()
            auth.remember(credentials, trio.current_time())
        passage.request = auth.accept(request, credentials)
        return None


class RetryStep:
    """retry: how often backends are tried for this request."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy

    async def take(self, passage: Passage) -> Answer | None:
        passage.retry = self._policy
        return None


class CompressStep:
    """compress: plain answers; sessions are never touched."""

    def __init__(self, compress: Compress) -> None:
        self._compress = compress

    async def take(self, passage: Passage) -> Answer | None:
        passage.compress = self._compress
        return None


class ForwardAuthStep:
    """forwardAuth: the authentication server decides; whatever goes wrong with that is never a pass."""

    def __init__(self, name: str, auth: ForwardAuth, verify: ssl.SSLContext | bool, limit: int) -> None:
        """Make the step.

        Args:
          name: the middleware's, for the log.
          auth: what is asked and what the answer means.
          verify: how the server's certificate is checked, as httpx takes it.
          limit: bytes that the body of an answer may have.

        """
        self._name = name
        self._auth = auth
        self._verify = verify
        self._limit = limit

    async def take(self, passage: Passage) -> Answer | None:
        request = passage.request
        question = self._auth.question(request)
        answered: tuple[int, Headers, bytes] | None = None
        try:
            with trio.fail_after(AUTH_TIMEOUT):
                answered = await self._ask(question)
        except* Exception as group:  # noqa: BLE001 - whatever it is, the request does not pass
            log.warning("authentication server failed", middleware=self._name, reason=_first_words(group))
        if answered is None:
            return self._auth.failure()
        verdict = self._auth.judge(request, *answered)
        if isinstance(verdict, Answer):
            return verdict
        passage.request = verdict.request
        passage.edit_response(verdict.on_response)
        return None

    async def _ask(self, question: Question) -> tuple[int, Headers, bytes]:
        # A connection for each question: a kept one could be closed by the server just when it is used.
        transport = httpx.AsyncHTTPTransport(
            verify=self._verify, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
        )
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in question.headers]
        fields.append((b"Connection", b"close"))
        asked = httpx.Request(question.method, str(question.address), headers=fields)
        async with transport:
            answer = await transport.handle_async_request(asked)
            assert isinstance(answer.stream, httpx.AsyncByteStream)
            try:
                body = await self._read(answer.stream)
            finally:
                with trio.move_on_after(1, shield=True):
                    await answer.stream.aclose()
        raw = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers.raw]
        return answer.status_code, Headers(raw), body

    async def _read(self, stream: httpx.AsyncByteStream) -> bytes:
        body = bytearray()
        too_large = False
        try:
            async for piece in stream:
                if not too_large:
                    body += piece
                    if len(body) > self._limit:
                        # Leaving the loop would leave generators inside httpx to the garbage collector. With the
                        # connection closed their next read ends them.
                        too_large = True
                        await stream.aclose()
        except (httpx.HTTPError, trio.ClosedResourceError):
            if not too_large:
                raise
        if too_large:
            raise ValueError("the answer is larger than maxResponseBodySize")
        return bytes(body)


def _first_words(group: BaseExceptionGroup[Exception]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, trio.TooSlowError):
        return f"no complete answer within {AUTH_TIMEOUT:g} s"
    return f"{type(error).__name__}: {error}".rstrip(": ")
