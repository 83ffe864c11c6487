"""`trio-wsb run`: the daemon."""

from __future__ import annotations

import os
import random
import sys
from functools import partial
from pathlib import Path

import click
import trio

DEFAULT_CONFIG = "/etc/trio-wsb/trio-wsb.yaml"


@click.command
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    show_default=True,
    help="Configuration file; SIGHUP reads it again.",
)
def run(path: Path) -> None:
    """Run the daemon in the foreground.

    SIGHUP reloads the configuration without dropping sessions. SIGTERM and SIGINT stop: sessions get a Close
    frame (1001) spread over the grace period; a second one ends everything at once. SIGUSR1 opens the log files
    anew, for logrotate.

    Exit status: 0 after a stop, 1 when the configuration cannot be used.
    """
    from trio_wsb.daemon.activation import take_sockets
    from trio_wsb.daemon.build import prepare
    from trio_wsb.daemon.notify import Notifier
    from trio_wsb.daemon.supervisor import Supervisor
    from trio_wsb.errors import ConfigurationError
    from trio_wsb.observe.log import LogOutput, priority

    output = LogOutput()
    notifier = Notifier.from_environment(os.environ, pid=os.getpid())
    try:
        inherited = take_sockets(os.environ, pid=os.getpid())
        first = prepare(path)
        supervisor = Supervisor(
            path, output=output, rng=random.Random(), notifier=notifier, inherited=inherited
        )
        trio.run(partial(supervisor.run, first))
    except* ConfigurationError as group:
        problems = [problem for error in _leaves(group) for problem in getattr(error, "problems", ())]
        for problem in problems:
            click.echo(priority(sys.stderr, "error") + problem, err=True)
        notifier.failed(f"cannot start: {problems[0]}")
        sys.exit(1)
    finally:
        notifier.close()
        output.close()


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
