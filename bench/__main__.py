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
from bench.processes import BenchError, MissingTool
from bench.run import Options, measure, prepared
from bench.scenarios import SCENARIOS

_Number = TypeVar("_Number", int, float)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench and return the exit status."""
    options = _parser().parse_args(arguments)
    # Whatever ends the bench, the processes that it started are stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _run(options)
    except MissingTool as error:
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
    with prepared(what) as bench:
        tables = [report.Table(each.name, each.title(bench), each.figure) for each in scenarios]
        samples = measure(bench, scenarios, peers, what.rounds, _tell)
    about = machine.describe(versions, rounds=what.rounds, seconds=what.seconds)
    page = report.markdown(samples, tables, about)
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
    """The peers that are installed and their versions; what is missing is named.

    Raises:
      MissingTool: none is there.

    """
    peers, versions = [], []
    for name in names:
        try:
            version = PEERS[name].version()
        except MissingTool as error:
            print(f"bench: {error}: measured without it", file=sys.stderr)
            continue
        peers.append(PEERS[name])
        if name != report.DIRECT:
            versions.append(version)
    if not peers:
        raise MissingTool("nothing that was asked for is installed")
    return peers, versions


def _tell(sample: report.Sample) -> None:
    figure = SCENARIOS[sample.scenario].figure
    value = report.format_number(sample.figures[figure])
    print(f"round {sample.round}  {sample.scenario:<11} {sample.peer:<9} {value:>9} {figure}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure trio-wsb beside other proxies on this machine."
    )
    add = parser.add_argument
    add("--rounds", type=_within(int, 1, 100), default=3, metavar="N", help="3 unless said")
    add("--seconds", type=_within(float, 0.1, 600), default=3.0, metavar="S", help="of each measurement (3)")
    add("--sessions", type=_within(int, 1, 10_000), default=20, metavar="N", help="that echo (20)")
    add(
        "--size",
        type=_within(int, 1, 16 << 20),
        default=64,
        metavar="BYTES",
        help="of an echoed message (64)",
    )
    add(
        "--idle", type=_within(int, 1, 50_000), default=2000, metavar="N", help="idle sessions for RSS (2000)"
    )
    add(
        "--peers",
        type=_names(PEERS),
        default=list(PEERS),
        metavar="NAMES",
        help=f"of {','.join(PEERS)} (all)",
    )
    add("--scenarios", type=_names(SCENARIOS), default=list(SCENARIOS), metavar="NAMES",
        help=f"of {','.join(SCENARIOS)} (all)")  # fmt: skip
    add("--markdown", type=Path, metavar="FILE", help="write the report there, such as docs/benchmarks.md")
    add("--json", type=Path, metavar="FILE", help="write every sample there")
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
