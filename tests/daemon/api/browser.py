"""A headless Chromium, driven by the DevTools protocol over a WebSocket."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from tests.daemon.harness import PATIENCE, Running, http_client
from tests.daemon.waiting import eventually

PROGRAM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)


class Tab:
    """One page. What goes wrong in it is collected: `problems` and `requested` are for a test to look at."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection
        self._waiting: dict[int, tuple[trio.Event, list[dict[str, Any]]]] = {}
        self._last = 0
        self.problems: list[str] = []
        """What the console, the policy and exceptions said."""
        self.requested: set[str] = set()
        """Every URL that was asked for."""

    async def listen(self) -> None:
        """Receive until the browser is gone."""
        try:
            while True:
                self._take(json.loads(await self._connection.get_message()))
        except ConnectionClosed:
            pass

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            event, answers = self._waiting.pop(message["id"])
            answers.append(message)
            event.set()
            return
        match message["method"], message["params"]:
            case "Runtime.exceptionThrown", {"exceptionDetails": details}:
                self.problems.append(json.dumps(details)[:500])
            case "Log.entryAdded", {"entry": entry} if entry["level"] == "error":
                self.problems.append(entry["text"])
            case "Runtime.consoleAPICalled", {"type": "error", "args": args}:
                self.problems.append(json.dumps(args)[:500])
            case "Network.requestWillBeSent", {"request": request}:
                self.requested.add(request["url"])
            case "Network.webSocketCreated", {"url": url}:
                self.requested.add(url)
            case _:
                pass

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._last += 1
        event, answers = trio.Event(), list[dict[str, Any]]()
        self._waiting[self._last] = (event, answers)
        await self._connection.send_message(
            json.dumps({"id": self._last, "method": method, "params": parameters})
        )
        with trio.fail_after(PATIENCE):
            await event.wait()
        assert "error" not in answers[0], answers[0]
        result: dict[str, Any] = answers[0]["result"]
        return result

    async def value(self, expression: str) -> Any:
        """Return what an expression is in the page."""
        found = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait until an expression is true in the page, and return it."""
        try:
            return await eventually(partial(self.value, expression))
        except AssertionError:
            raise AssertionError(f"{expression} stays false; the page said {self.problems}") from None

    async def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a page in a window of this size."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        await self.colours(dark=dark)
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def colours(self, *, dark: bool) -> None:
        """Let the system prefer these colours."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def press(self, key: str, code: int) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    async def picture(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        found = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))


@asynccontextmanager
async def tab(profile: Path) -> AsyncIterator[Tab]:
    """Run a browser with one page for as long as the block lasts."""
    assert PROGRAM is not None
    options = [
        "--headless=new",
        "--disable-gpu",
        "--hide-scrollbars",
        "--no-first-run",
        "--remote-debugging-port=0",
    ]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # it refuses to run as root with one
    async with Running.program(PROGRAM, *options, f"--user-data-dir={profile}", "about:blank") as running:
        line = await running.line("DevTools listening on")
        match = re.search(r"ws://(127\.0\.0\.1:\d+)/", line)
        assert match is not None
        async with http_client() as client:
            pages = (await client.get(f"http://{match[1]}/json")).json()
        (page,) = [each for each in pages if each["type"] == "page"]
        async with (
            open_websocket_url(page["webSocketDebuggerUrl"], max_message_size=1 << 26) as connection,
            trio.open_nursery() as nursery,
        ):
            found = Tab(connection)
            nursery.start_soon(found.listen)
            for domain in ("Page", "Runtime", "Log", "Network"):
                await found.call(f"{domain}.enable")
            await found.call("Emulation.setFocusEmulationEnabled", enabled=True)
            yield found
            nursery.cancel_scope.cancel()
