"""Option types of the command line: the same durations, addresses and URLs as in the configuration."""

from __future__ import annotations

import click

from trio_wsb.addresses import ListenAddress, parse_listen
from trio_wsb.units import parse_duration, parse_rate, parse_size


class DurationType(click.ParamType):  # type: ignore[type-arg]  # a parameter only in newer releases
    """``30s``, ``100ms``, ``1m30s`` or a number of seconds; a float of seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


class RateType(click.ParamType):  # type: ignore[type-arg]  # a parameter only in newer releases
    """``10/s``, ``600/m`` or a number per second; a float of events per second."""

    name = "rate"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return events per second."""
        try:
            return parse_rate(float(value) if isinstance(value, str) and value.isdecimal() else value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


class SizeType(click.ParamType):  # type: ignore[type-arg]  # a parameter only in newer releases
    """``64KiB``, ``1MB`` or a number of bytes; an int of bytes."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes."""
        try:
            return parse_size(int(value) if isinstance(value, str) and value.isdecimal() else value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


class ListenType(click.ParamType):  # type: ignore[type-arg]  # a parameter only in newer releases
    """``HOST:PORT`` or ``:PORT``; a `ListenAddress`."""

    name = "host:port"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> ListenAddress:
        """Return the address."""
        if isinstance(value, ListenAddress):
            return value
        try:
            return parse_listen(str(value))
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


class WebSocketURLType(click.ParamType):  # type: ignore[type-arg]  # a parameter only in newer releases
    """``ws://`` or ``wss://`` (``http://`` and ``https://`` mean the same), with any path."""

    name = "url"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the URL."""
        # The other types serve commands that need nothing of Trio and of a WebSocket client.
        from trio_wsb.demo.connect import parse_target

        try:
            parse_target(str(value))
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)
        return str(value)


DURATION = DurationType()
RATE = RateType()
SIZE = SizeType()
LISTEN = ListenType()
WEBSOCKET_URL = WebSocketURLType()
