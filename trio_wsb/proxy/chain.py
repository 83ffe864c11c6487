"""The chain: what stands between a router and its service, run for one request.

A step may answer the request itself, change it, change the head of the answer, take something that is given
back when the request or session ends, and learn what became of the attempt. `Passage` keeps all of that for
one request; the steps themselves are shared and belong to the runtime snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from attrs import frozen

from trio_wsb.errors import HTTPError
from trio_wsb.http.headers import Headers
from trio_wsb.middleware.compress import Compress
from trio_wsb.middleware.exchange import Answer, Request
from trio_wsb.proxy.record import RequestRecord

ResponseEdit = Callable[[Headers], Headers]
"""Changes the fields of an answer's head."""


@frozen
class Outcome:
    """What became of an attempt to reach a backend, as it is when the answer's head is there."""

    status: int
    network_error: bool


@frozen
class RetryPolicy:
    """How often backends are tried, and how long is waited before each further try, in seconds."""

    attempts: int
    pauses: Callable[[], Iterator[float]]


class Answered(HTTPError):
    """A step's own answer to the client, raised so that it takes the way of every refusal.

    `body` is sent as it is; the connection ends after it.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status, answer.reason, answer.headers)
        self.body = answer.body


class Remains:
    """What steps took and is to be given back at the end. Small, since a session keeps it for its whole life."""

    __slots__ = ("_work",)

    def __init__(self) -> None:
        self._work: list[Callable[[], None]] = []

    def add(self, work: Callable[[], None]) -> None:
        """Do `work` at the end."""
        self._work.append(work)

    def end(self) -> None:
        """Give back what was taken, last things first; only the first call does."""
        work, self._work = self._work, []
        for each in reversed(work):
            each()

    def __bool__(self) -> bool:
        return bool(self._work)


class Passage:
    """One request's way through the chain and what it leaves to be done."""

    __slots__ = ("_edits", "_judges", "compress", "record", "remains", "request", "retry")

    def __init__(self, request: Request, record: RequestRecord | None = None) -> None:
        self.request = request
        """The request as the last step left it."""
        self.record = record or RequestRecord()
        """What observers will be told; whoever learns something of the request writes it there."""
        self.retry: RetryPolicy | None = None
        """What replaces the default number of tries."""
        self.compress: Compress | None = None
        """Decides whether a plain answer is compressed."""
        self.remains = Remains()
        """Outlives the passage when the request becomes a session."""
        self._edits: list[ResponseEdit] = []
        self._judges: list[Callable[[Outcome], None]] = []

    async def run(self, steps: Sequence[Step]) -> None:
        """Take the steps in order.

        Raises:
          Answered: a step answers the request itself; the steps behind it were not taken.

        """
        for step in steps:
            answer = await step.take(self)
            if answer is not None:
                self.record.answered_by = step
                raise Answered(answer)

    def edit_response(self, edit: ResponseEdit) -> None:
        """Apply `edit` to the head of whatever answers the request; what was asked for last is applied first."""
        self._edits.append(edit)

    def judge(self, judge: Callable[[Outcome], None]) -> None:
        """Call `judge` once with what became of the attempt, if there is one."""
        self._judges.append(judge)

    def at_end(self, work: Callable[[], None]) -> None:
        """Do `work` once when the request, or the session that it became, is over."""
        self.remains.add(work)

    def edited(self, headers: Headers) -> Headers:
        """Return the fields of an answer as the client is to see them."""
        for edit in reversed(self._edits):
            headers = edit(headers)
        return headers

    def conclude(self, status: int, *, network_error: bool = False) -> None:
        """Tell whoever judges; only the first call counts."""
        judges, self._judges = self._judges, []
        if judges:
            outcome = Outcome(status, network_error)
            for judge in judges:
                judge(outcome)


class Step(Protocol):
    """A middleware in force."""

    async def take(self, passage: Passage) -> Answer | None:
        """Do its work on the passage; an answer ends the chain."""
        ...
