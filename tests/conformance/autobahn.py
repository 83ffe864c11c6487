"""The Autobahn test suite, directly against an echo server and through the daemon, compared case by case.

    python -m tests.conformance.autobahn [--cases 1.* ...] [--out DIRECTORY]

Its client (`wstest -m fuzzingclient`) runs on Python 2.7. It is taken from $WSTEST or the path; else an environment of its
own is made for it in `.autobahn`, where there is a Python 2.7 ($PYTHON27, the path, pyenv) with pip.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import trio

from tests.daemon.harness import Running, daemon, free_port

HOME: Final = Path(".autobahn")
VIRTUALENV: Final = "virtualenv==20.15.1"  # the last one that makes environments for Python 2.7
SUITE: Final = "autobahntestsuite"
RELAYS: Final = ("stream", "kernel")
DIRECT: Final = "direct"
VERDICTS: Final = ("behavior", "behaviorClose")

REPEATS: Final = 3
"""How often cases are run again whose verdicts differ."""

Index = dict[str, dict[str, dict[str, Any]]]


class MissingError(Exception):
    """Something that this needs is not here; the text says what."""


def pythons() -> Iterator[str]:
    """Yield every Python 2.7 that works."""
    candidates = [os.environ.get("PYTHON27"), shutil.which("python2.7"), shutil.which("python2")]
    candidates += map(str, sorted(Path.home().glob(".pyenv/versions/2.7*/bin/python")))
    for each in candidates:
        if each is None:
            continue
        asked = [each, "-c", "import sys, pip; print(sys.version_info[:2] == (2, 7))"]
        if subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == "True":
            yield each


def wstest() -> str:
    """Return the command `wstest`, installing it if need be.

    Raises:
      MissingError: it is not here, and cannot be installed.

    """
    found = os.environ.get("WSTEST") or shutil.which("wstest")
    if found:
        return found
    made = HOME / "env" / "bin" / "wstest"
    if made.exists():
        return str(made)
    python = next(pythons(), None)
    if python is None:
        raise MissingError(
            "the Autobahn test suite needs Python 2.7 with pip, and there is none: set PYTHON27, or WSTEST to a wstest of yours"
        )
    library = HOME / "lib"
    commands = [
        [python, "-m", "pip", "install", "--quiet", VIRTUALENV, "--target", str(library)],
        [python, "-m", "virtualenv", "--quiet", str(HOME / "env")],
        [str(HOME / "env" / "bin" / "pip"), "install", "--quiet", SUITE],
    ]
    for command in commands:
        print("+", *command, flush=True)
        # What virtualenv needs must not pass for what the environment has.
        library_path = {"PYTHONPATH": str(library)} if "virtualenv" in command else {}
        environment = {**os.environ, **library_path, "PYTHONWARNINGS": "ignore"}
        if subprocess.run(command, env=environment, check=False).returncode:
            raise MissingError(f"the Autobahn test suite could not be installed: {command[-1]}")
    return str(made)


def configuration(port: int) -> dict[str, Any]:
    """Return an `http` section with a path for each relay."""
    server = {"servers": [{"url": f"http://127.0.0.1:{port}"}]}
    return {
        "routers": {each: {"rule": f"PathPrefix(`/{each}`)", "service": each} for each in RELAYS},
        "services": {each: {"loadBalancer": {**server, "relay": each}} for each in RELAYS},
    }


async def run(command: str, cases: Sequence[str], out: Path) -> tuple[Index, str]:
    """Run the suite and return what it found, and why the kernel relay was left out ("" if it was not)."""
    port = free_port()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with Running.program(sys.executable, "-m", "tests.conformance.echo", str(port)) as backend:
            await backend.line("listening on")
            async with daemon(Path(folder), [], http=configuration(port)) as running:
                why = next((line["reason"] for line in running.log(NO_KERNEL)), "")
                relays = [each for each in RELAYS if each != "kernel" or not why]
                servers = [{"agent": DIRECT, "url": f"ws://127.0.0.1:{port}"}]
                servers += [{"agent": each, "url": f"{running.ws}/{each}"} for each in relays]
                spec = out / "spec.json"
                spec.write_text(
                    json.dumps(
                        {
                            "outdir": str(out / "reports"),
                            "servers": servers,
                            "cases": list(cases),
                            "exclude-cases": [],
                            "exclude-agent-cases": {},
                        }
                    )
                )
                done = await trio.run_process(
                    [command, "-m", "fuzzingclient", "-s", str(spec)],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=False,
                )
                faults = running.log("internal error")
    if done.returncode:
        raise MissingError(f"{command} ended with {done.returncode}")
    assert faults == [], faults
    index: Index = json.loads((out / "reports" / "index.json").read_text())
    return index, why


NO_KERNEL: Final = "no kernel relay, the daemon moves all bytes itself"


Seen = dict[str, dict[str, set[tuple[str, ...]]]]
"""By agent and case the verdicts that were seen."""


def note(seen: Seen, index: Index) -> None:
    """Add what a run found."""
    for agent, cases in index.items():
        for case, found in cases.items():
            verdict = tuple(str(found[each]) for each in VERDICTS)
            seen.setdefault(agent, {}).setdefault(case, set()).add(verdict)


def differing(seen: Seen) -> dict[str, list[str]]:
    """Return for each relay the cases that have no verdict in common with the direct runs."""
    return {
        agent: [case for case, verdicts in cases.items() if not verdicts & seen[DIRECT][case]]
        for agent, cases in seen.items()
        if agent != DIRECT
    }


def main() -> None:
    """Run, compare and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.autobahn")
    parser.add_argument("--cases", nargs="+", default=["*"], help="as Autobahn names them; default all")
    parser.add_argument("--out", type=Path, default=HOME, help="where the reports go")
    options = parser.parse_args()
    try:
        command = wstest()
        index, why = trio.run(run, command, options.cases, options.out.resolve())
    except MissingError as error:
        sys.exit(str(error))
    for agent, cases in index.items():
        counted = Counter(case["behavior"] for case in cases.values())
        told = ", ".join(f"{verdict} {count}" for verdict, count in sorted(counted.items()))
        print(f"{agent:8} {len(cases)} cases: {told}")
    if why:
        print(f"kernel   not run: {why}")
    seen: Seen = {}
    note(seen, index)
    # Some verdicts depend on who is quicker, the echo or the Close after a violation: these cases get more chances.
    for _ in range(REPEATS):
        again = sorted({case for cases in differing(seen).values() for case in cases})
        if not again:
            print("every case has the same verdicts through the daemon as directly")
            return
        print("again, since their verdicts differ:", *again)
        note(seen, trio.run(run, command, again, options.out.resolve() / "again")[0])
    for agent, blamed in differing(seen).items():
        for case in blamed:
            print(f"{agent}: {case}: {seen[agent][case]}, directly {seen[DIRECT][case]}")
    if any(differing(seen).values()):
        sys.exit("the daemon changes verdicts")
    print("every case has verdicts through the daemon that it has directly too")


if __name__ == "__main__":
    main()
