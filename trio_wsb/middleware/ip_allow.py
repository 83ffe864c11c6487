"""ipAllowList: requests from certain networks alone."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from trio_wsb.addresses import IPNetwork, Networks
from trio_wsb.middleware.exchange import Answer, Request, status_text
from trio_wsb.middleware.options import NOT_EMPTY, STATUS, OptionProblem, option
from trio_wsb.middleware.source import ClientAddress, IPStrategyOptions


@frozen
class IPAllowListOptions:
    """Networks whose requests may pass."""

    source_range: tuple[IPNetwork, ...] = option(
        "Addresses and networks that may pass; at least one.", check=NOT_EMPTY
    )
    ip_strategy: IPStrategyOptions | None = option(
        "Which address is looked up; the peer's unless given.", None
    )
    reject_status_code: int = option("Status for everybody else.", 403, check=STATUS)

    def problems(self) -> Iterator[OptionProblem]:
        """Yield what is wrong between the options."""
        if self.ip_strategy is not None:
            for each in self.ip_strategy.problems():
                yield OptionProblem(("ip_strategy", *each.path), each.message, each.hint, each.severity)


class IPAllowList:
    """Decides by address."""

    def __init__(self, options: IPAllowListOptions) -> None:
        self._allowed = Networks(options.source_range)
        self._address = ClientAddress(options.ip_strategy or IPStrategyOptions())
        self._status = options.reject_status_code

    def judge(self, request: Request) -> Answer | None:
        """Return None if the request may pass, else the answer to it; without a known address it may not."""
        address = self._address.find(request)
        if address is not None and address in self._allowed:
            return None
        return Answer(self._status, "the address is not allowed", body=status_text(self._status))
