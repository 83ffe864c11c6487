"""``python -m bench``: see ``--help``.

Exit status: 0 measured (targets may be missed), 1 a measurement went wrong, 2 the bench cannot run here.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

from attrs import asdict, evolve

from bench import machine, plots, report
from bench.peer import Peer
from bench.peers import PEERS
from bench.processes import BenchError, MissingToolError
from bench.run import HELD, Options, measure, prepared
from bench.scenarios import SCENARIOS, Scenario

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
    what = _extent(options)
    scenarios = possible([SCENARIOS[name] for name in options.scenarios or _asked(full=options.full)])
    peers, versions = _available(options.peers)
    about = machine.describe(versions, rounds=what.rounds, seconds=what.seconds)
    busy = machine.busy_cores()
    if busy > BUSY:
        about["Disturbed"] = (
            f"other programs used {busy:.2f} cores when this began, so the figures are no verdict"
        )
        print(f"bench: {about['Disturbed']}; measure again when they rest", file=sys.stderr)
    tables = [
        report.Table(each.name, _title(each, what), each.figure, each.unit, each.columns)
        for each in scenarios
    ]
    with prepared(what) as bench:
        samples = measure(bench, scenarios, peers, what.rounds, _tell)
    targets = report.TARGETS if what.held == HELD else ()
    page = report.markdown(samples, tables, about, targets, _draw(samples, tables, options))
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


def _extent(options: argparse.Namespace) -> Options:
    default = Options.full() if options.full else Options()
    wanted = {name: getattr(options, name) for name in ("rounds", "seconds", "held")}
    return evolve(default, **{name: value for name, value in wanted.items() if value is not None})


def _asked(*, full: bool) -> list[str]:
    return [scenario.name for scenario in SCENARIOS.values() if full or scenario.quick]


def possible(scenarios: Sequence[Scenario]) -> list[Scenario]:
    """Return those that can be asked here, and name the others.

    Raises:
      MissingToolError: none can.

    """
    found = []
    for each in scenarios:
        if missing := each.why_not():
            print(f"bench: {each.name}: {missing}: left out", file=sys.stderr)
        else:
            found.append(each)
    if not found:
        raise MissingToolError("nothing that was asked can be measured here")
    return found


def _title(scenario: Scenario, what: Options) -> str:
    return f"{scenario.title}: {what.held:,}" if scenario.holds else scenario.title


def _draw(
    samples: Sequence[report.Sample], tables: Sequence[report.Table], options: argparse.Namespace
) -> list[tuple[str, str]]:
    """Write the pictures if they are wanted, and return their titles and paths as the report names them."""
    if options.plots is None:
        return []
    options.plots.mkdir(parents=True, exist_ok=True)
    beside = options.markdown.parent if options.markdown else Path()
    drawn = []
    for which in plots.PICTURES:
        text = plots.picture(samples, tables, which)
        if text is not None:
            path = options.plots / f"{which.name}.svg"
            path.write_text(text)
            drawn.append((which.title, os.path.relpath(path, beside)))
    return drawn


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
    print(f"round {sample.round}  {sample.scenario:<13} {sample.peer:<16} {value:>9} {figure}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure trio-wsb beside other proxies on this machine."
    )
    short, full = Options(), Options.full()
    parser.add_argument("--full", action="store_true", help="every question, more and longer rounds")
    numbers: tuple[tuple[str, Callable[[str], float], str, str], ...] = (
        ("rounds", _within(int, 1, 100), "N", "how often everything is measured"),
        ("seconds", _within(float, 0.1, 600), "S", "how long each measurement takes"),
        ("held", _within(int, 100, 50_000), "N", "sessions where many are held"),
    )
    for name, convert, metavar, text in numbers:
        both = f"{text} ({getattr(short, name):g}, with --full {getattr(full, name):g})"
        parser.add_argument(f"--{name}", type=convert, metavar=metavar, help=both)
    parser.add_argument(
        "--peers",
        type=_names(list(PEERS)),
        default=list(PEERS),
        metavar="NAMES",
        help=f"of {','.join(PEERS)}",
    )
    parser.add_argument(
        "--scenarios", type=_names(list(SCENARIOS)), metavar="NAMES", help=f"of {','.join(SCENARIOS)}"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there as well")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="write pictures there (SVG)")
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
