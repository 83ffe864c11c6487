"""``python -m bench``: see ``--help``.

Exit status: 0 measured (targets may be missed), 1 a measurement went wrong, 2 the bench cannot run here.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

from attrs import asdict

from bench import machine, report
from bench.peers import PEERS, Peer
from bench.processes import BenchError, MissingToolError
from bench.run import Options, measure, prepared
from bench.scenarios import SCENARIOS

BUSY = 0.2
"""Cores in use before the bench begins from which on its report says so."""

_Number = TypeVar("_Number", int, float)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench and return the exit status."""
    options = _parser().parse_args(arguments)
    # Whatever ends the bench, the processes that it started are stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _run(options)
    except MissingToolError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except BenchError as error:
        print(f"bench: {error}", *getattr(error, "__notes__", []), sep="\n  ", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(options: argparse.Namespace) -> int:
    peers, versions = _available(options.peers)
    scenarios = [SCENARIOS[name] for name in options.scenarios]
    what = Options(options.rounds, options.seconds, options.sessions, options.size, options.idle)
    about = machine.describe(versions, rounds=what.rounds, seconds=what.seconds)
    busy = machine.busy_cores()
    if busy > BUSY:
        about["Disturbed"] = f"other programs used {busy:.2f} cores when this began"
        print(f"bench: {about['Disturbed']}; measure again when they rest", file=sys.stderr)
    with prepared(what) as bench:
        tables = [report.Table(each.name, each.title(bench), each.figure) for each in scenarios]
        samples = measure(bench, scenarios, peers, what.rounds, _tell)
    page = report.markdown(samples, tables, about, report.TARGETS if what.standard else ())
    print(f"\n{page}", end="")
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(page)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(
            json.dumps({"about": about, "samples": [asdict(each) for each in samples]}, indent=1)
        )
    return 0


def _available(names: Sequence[str]) -> tuple[list[Peer], list[str]]:
    """Return the peers that are installed, and their versions; name what is missing.

    Raises:
      MissingToolError: none is there.

    """
    peers, versions = [], []
    for name in names:
        try:
            version = PEERS[name].version()
        except MissingToolError as error:
            print(f"bench: {error}: measured without it", file=sys.stderr)
            continue
        peers.append(PEERS[name])
        if name != report.DIRECT:
            versions.append(version)
    if not peers:
        raise MissingToolError("nothing that was asked for is installed")
    return peers, list(dict.fromkeys(versions))


def _tell(sample: report.Sample) -> None:
    figure = SCENARIOS[sample.scenario].figure
    value = report.format_number(sample.figures[figure])
    print(f"round {sample.round}  {sample.scenario:<11} {sample.peer:<9} {value:>9} {figure}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure trio-wsb beside other proxies on this machine."
    )
    default = Options()
    numbers: tuple[tuple[str, Callable[[str], float], float, str, str], ...] = (
        ("--rounds", _within(int, 1, 100), default.rounds, "N", "how often everything is measured"),
        ("--seconds", _within(float, 0.1, 600), default.seconds, "S", "how long each measurement takes"),
        ("--sessions", _within(int, 1, 10_000), default.sessions, "N", "sessions that echo"),
        ("--size", _within(int, 1, 16 << 20), default.size, "BYTES", "of an echoed message"),
        ("--idle", _within(int, 1, 50_000), default.idle, "N", "idle sessions for RSS"),
    )
    for name, convert, value, metavar, text in numbers:
        parser.add_argument(name, type=convert, default=value, metavar=metavar, help=f"{text} ({value:g})")
    for name, known in (("--peers", list(PEERS)), ("--scenarios", list(SCENARIOS))):
        parser.add_argument(
            name, type=_names(known), default=known, metavar="NAMES", help=f"of {','.join(known)} (all)"
        )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    return parser


def _within(kind: type[_Number], least: float, most: float) -> Callable[[str], _Number]:
    def convert(text: str) -> _Number:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least:g} and {most:g}")
        return value

    convert.__name__ = "number"  # argparse names it in its messages
    return convert


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    def convert(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return list(dict.fromkeys(names))

    return convert


if __name__ == "__main__":
    sys.exit(main())
