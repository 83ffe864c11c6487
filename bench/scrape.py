"""What a scrape of /metrics costs those who talk meanwhile: ``python -m bench.scrape``.

One daemon with many idle sessions and a few that echo, in user space, so that the event loop matters. The echoes' latency is
measured without scrapes and with one after the other, each over the whole time; and the daemon is asked for the worst lag of
its event loop.

Exit status: 0 no scrape kept the event loop for longer than it may, 1 one did, or something went wrong.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from bench.native import Figures, LoadGenerator, backends
from bench.processes import BenchError, free_port, raise_descriptor_limit, running

BACKENDS = 3
LIMIT = 0.020
"""Seconds for which a scrape may keep the event loop."""

REST = 1.0
"""Seconds between the end of a scrape and the next one: five times as often as anybody scrapes."""


class Scraper:
    """Scrapes again and again in a thread, from `start` to `stop`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._scrape)
        self.seconds: list[float] = []
        self.sizes: list[tuple[int, int]] = []
        self.turns: list[float] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, when the scrape under way is over."""
        self._over.set()
        self._thread.join()

    def _scrape(self) -> None:
        while not self._over.wait(REST):
            begun = time.monotonic()
            body, text = page(self._url)
            self.seconds.append(time.monotonic() - begun)
            self.sizes.append((len(body), len(text)))
            self.turns.append(sample(text, "trio_wsb_scrape_longest_turn_seconds"))


def page(url: str) -> tuple[bytes, bytes]:
    """Return the page as Prometheus gets it, and unpacked."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=60) as response:
        body = response.read()
        packed = response.headers.get("Content-Encoding") == "gzip"
    return body, gzip.decompress(body) if packed else body


def sample(text: bytes, name: str) -> float:
    """Return the value of a metric without labels."""
    lines = [line for line in text.decode().splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].split()[1])


def main() -> int:
    """Run it and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.scrape", description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=9000, help="idle sessions")
    parser.add_argument("--busy", type=int, default=5, help="sessions that echo")
    parser.add_argument(
        "--pods", type=int, default=1000, help="backends in the configuration that nobody uses"
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="of each of the two measurements")
    parser.add_argument(
        "--settle",
        type=float,
        default=3.0,
        help="before it begins; after a minute the worst lag has nothing of the opening any more",
    )
    options = parser.parse_args()
    with TemporaryDirectory(prefix="bench-scrape-") as folder, ExitStack() as stack:
        try:
            return _measure(Path(folder), stack, options)
        except BenchError as error:
            log = Path(folder) / "daemon.log"
            said = log.read_text().splitlines()[-10:] if log.exists() else []
            print(f"bench: {error}", *said, sep="\n  ", file=sys.stderr)
            return 1


def _measure(folder: Path, stack: ExitStack, options: argparse.Namespace) -> int:
    raise_descriptor_limit(2 * (options.sessions + options.busy) + 1024)
    clients = LoadGenerator()
    servers = stack.enter_context(backends(BACKENDS))
    web, admin = free_port(), free_port()
    used = [{"url": f"http://127.0.0.1:{port}"} for port in servers.ports]
    unused = [{"url": f"http://127.1.{number // 250}.{number % 250 + 1}:9"} for number in range(options.pods)]
    services = {
        "chat": {"loadBalancer": {"relay": "stream", "servers": used}},
        **({"spare": {"loadBalancer": {"servers": unused}}} if unused else {}),
    }
    document = {
        "entryPoints": {
            "web": {"address": f"127.0.0.1:{web}", "maxConnections": options.sessions + 512},
            "admin": {"address": f"127.0.0.1:{admin}"},
        },
        "log": {"level": "WARN"},
        "metrics": {"prometheus": {"traefikNames": True, "addRoutersLabels": True}},
        "http": {
            "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "chat", "entryPoints": ["web"]}},
            "services": services,
        },
    }
    (folder / "daemon.yaml").write_text(yaml.safe_dump(document))
    command = (sys.executable, "-m", "trio_wsb", "run", "--config", str(folder / "daemon.yaml"))
    stack.enter_context(running("daemon", command, folder / "daemon.log", port=web))
    url = f"http://127.0.0.1:{admin}/metrics"
    with clients.idle([web], sessions=options.sessions):
        time.sleep(options.settle)
        quiet = _echo(clients, web, options)
        _, text = page(url)
        before = sample(text, "trio_wsb_event_loop_lag_worst_seconds")
        scraper = Scraper(url)
        scraper.start()
        try:
            scraped = _echo(clients, web, options)
        finally:
            scraper.stop()
        _, text = page(url)
        worst = sample(text, "trio_wsb_event_loop_lag_worst_seconds")
        there = sample(text, "trio_wsb_sessions_open")
    _report(options, quiet, scraped, scraper, (before, worst), text, there)
    return 0 if max(scraper.turns) <= LIMIT else 1


def _echo(clients: LoadGenerator, port: int, options: argparse.Namespace) -> Figures:
    return clients.echo([port], sessions=options.busy, size=64, seconds=options.seconds)


def _report(
    options: argparse.Namespace,
    quiet: Figures,
    scraped: Figures,
    scraper: Scraper,
    lags: tuple[float, float],
    text: bytes,
    there: float,
) -> None:
    packed, size = scraper.sizes[-1]
    middle = sorted(scraper.seconds)[len(scraper.seconds) // 2]
    print(f"{there:.0f} idle sessions, {options.busy} that echo, {BACKENDS} + {options.pods} backends")
    print(
        f"{len(scraper.seconds)} scrapes, one {middle * 1000:.0f} ms (median), {max(scraper.seconds) * 1000:.0f} ms (worst)"
    )
    lines = text.count(b"\n")
    print(f"{lines} lines, {size / 1e6:.2f} MB, {packed / 1e3:.0f} kB on the wire")
    print(
        "| echo | messages/s | p50 ms | p99 ms | p99.9 ms | worst ms |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name, each in (("without scrapes", quiet), ("with scrapes", scraped)):
        latencies = " | ".join(f"{each[f'{key}_us'] / 1000:.2f}" for key in ("p50", "p99", "p999", "max"))
        print(f"| {name} | {each['messages_per_s']:.0f} | {latencies} |")
    print(f"longest turn of a scrape on the event loop: {max(scraper.turns) * 1000:.1f} ms of processor time")
    print(f"worst event-loop lag: {lags[0] * 1000:.1f} ms without scrapes, {lags[1] * 1000:.1f} ms with them")


if __name__ == "__main__":
    sys.exit(main())
