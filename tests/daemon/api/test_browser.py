"""The dashboard in a real browser, over the real daemon."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.daemon.api.browser import PROGRAM, Tab, tab
from tests.daemon.harness import backend, clients, daemon, echo, free_port

pytestmark = [
    pytest.mark.daemon,
    pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed (Debian package chromium)"),
]

EVIL = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"

CONTRASTS = """(() => {
  const luminance = (c) => { const f = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * f(c[0]) + 0.7152 * f(c[1]) + 0.0722 * f(c[2]); };
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const background = (node) => { for (; node; node = node.parentElement) { const c = numbers(getComputedStyle(node).backgroundColor);
    if (c.length < 4 || c[3] > 0.9) return c; } return numbers(getComputedStyle(document.body).backgroundColor); };
  const low = [];
  for (const node of document.querySelectorAll("main *, footer *")) {
    if (![...node.childNodes].some((each) => each.nodeType === 3 && each.textContent.trim()) || !node.offsetParent || node.closest(".sr, :disabled")) continue;
    const [a, b] = [luminance(numbers(getComputedStyle(node).color)), luminance(background(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(node.tagName + "." + node.className + " " + ratio.toFixed(2) + " " + node.textContent.slice(0, 30));
  }
  return low;
})()"""


async def text(page: Tab, identity: str) -> str:
    found: str = await page.value(f"document.getElementById('{identity}').innerText")
    return found


async def fill(page: Tab, identity: str, value: str) -> None:
    await page.value(
        f"(() => {{ const e = document.getElementById('{identity}'); e.value = {value!r}; e.dispatchEvent(new Event('input')); }})()"
    )


async def test_the_dashboard(tmp_path: Path) -> None:
    port, admin = free_port(), free_port()
    quick = {"lifeCycle": {"graceTimeOut": "200ms"}}
    entry_points = {
        name: {"address": f"127.0.0.1:{each}", "transport": quick}
        for name, each in (("web", port), ("admin", admin))
    }
    async with backend(name=EVIL) as first, backend(name="pod-b") as second, clients() as made:
        balancer = {
            "servers": [{"url": first.url}, {"url": second.url}],
            "connectionCount": {"path": "/metric", "interval": "500ms"},
            "healthCheck": {"path": "/api/health", "interval": "500ms", "timeout": "5s", "fall": 1},
        }
        http = {
            "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "chat"}},
            "services": {"chat": {"loadBalancer": balancer}},
        }
        async with (
            daemon(tmp_path, [], port=port, entryPoints=entry_points, http=http) as running,
            tab(tmp_path / "profile") as page,
        ):
            for number in range(30):
                await echo(await made.connect(f"{running.ws}/room/{number}?{quote(EVIL)}"), "hello")
            await made.connect(f"{running.ws}/{EVIL.replace(' ', '/')}")
            await page.open(f"http://127.0.0.1:{admin}/")
            assert await page.value("location.pathname") == "/dashboard/"

            # By keyboard the first thing is the way past the header.
            await page.press("Tab", 9)
            assert await page.value("document.activeElement.className") == "skip"
            await page.press("Tab", 9)
            assert await page.value("document.activeElement.id") == "pause"

            # What it shows is true, and live.
            await page.until("document.getElementById('link-text').textContent === 'live'")
            await page.until("document.getElementById('t-open').textContent === '31'")
            await page.until("document.querySelectorAll('#backends tbody tr').length === 2")
            await made.connect(f"{running.ws}/more")
            await page.until("document.getElementById('t-open').textContent === '32'")
            assert "of 2" in await text(page, "t-backends")

            # What strangers wrote is text.
            await page.until(f"document.querySelector('#backends').innerText.includes({EVIL!r})")
            await page.until("document.querySelector('#sessions').innerText.includes('<img')")
            assert await page.value("document.querySelectorAll('img, main script').length") == 0
            assert await page.value("window.hacked === undefined")

            # The table of sessions is searched and paged by the server.
            await page.until("document.getElementById('session-page').textContent === '1 to 25 of 32'")
            await page.value("document.getElementById('session-next').click()")
            await page.until("document.getElementById('session-page').textContent === '26 to 32 of 32'")
            await fill(page, "session-search", "/room/17")
            await page.until("document.getElementById('session-page').textContent === '1 to 1 of 1'")
            await fill(page, "session-search", "")
            await page.value(
                "[...document.querySelectorAll('#backends .name')].find((e) => e.innerText === 'pod-b').click()"
            )
            await page.until("document.getElementById('session-count').textContent === '16 fit'")
            await page.value("document.getElementById('session-filter-off').click()")
            await page.until("document.getElementById('session-count').textContent === '32 live'")

            # Charts are read by arrows.
            await page.value("document.getElementById('spread').focus()")
            await page.press("ArrowLeft", 37)
            await page.until("document.querySelector('#spread-legend .when') !== null")
            assert re.search(
                r"pod-b \d+", await page.value("document.getElementById('spread').getAttribute('aria-label')")
            )

            # Light, dark, and the choice that stays.
            assert await page.value(CONTRASTS) == []
            await page.colours(dark=True)
            assert await page.value(CONTRASTS) == []
            await page.value("document.getElementById('theme').click()")
            assert await text(page, "theme-text") == "Light"
            assert await page.value("getComputedStyle(document.body).backgroundColor") == "rgb(244, 245, 249)"
            await page.call("Page.reload")
            await page.until(
                "document.readyState === 'complete' && document.documentElement.dataset.theme === 'light'"
            )
            await page.until("document.getElementById('t-open').textContent === '32'")

            # On a phone nothing sticks out.
            await page.open(f"http://127.0.0.1:{admin}/dashboard/", width=360, height=740)
            await page.until("document.querySelectorAll('#sessions tbody tr').length === 10")
            assert await page.value("document.documentElement.scrollWidth") == 360

            # A backend that goes is an event and a state.
            second.running.signal(signal.SIGTERM)
            await page.until("/down/.test(document.querySelector('#backends').innerText)")
            await page.until("/Backend down/.test(document.getElementById('events').innerText)")

            # It loaded nothing from elsewhere, and neither the policy nor the console had a word to say.
            assert {urlsplit(url).netloc for url in page.requested if not url.startswith("data:")} == {
                f"127.0.0.1:{admin}"
            }
            assert page.problems == []

            # It comes back by itself.
            await made.close()
            running.running.signal(signal.SIGTERM)
            await page.until("document.getElementById('link').dataset.state === 'lost'")
            await running.running.exit()
            async with daemon(tmp_path, [], port=port, entryPoints=entry_points, http=http):
                await page.until("document.getElementById('link').dataset.state === 'live'")
                await page.until("document.getElementById('t-open').textContent === '0'")
