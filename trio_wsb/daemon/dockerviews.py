"""The Docker provider as the status has it: how the Engine stands, and which containers count."""

from __future__ import annotations

from collections import Counter

import trio

from trio_wsb.config.discovery import ContainerState, Discovered
from trio_wsb.daemon.instants import moment
from trio_wsb.providers.docker import DockerProviderTask

View = dict[str, object]


def docker_view(task: DockerProviderTask | None, discovered: Discovered | None, wall: float) -> list[View]:
    """Return how the provider stands, in a list that is empty where there is none.

    Args:
      task: who follows the Engine.
      discovered: what is in force of the containers.
      wall: the time, in seconds since 1970.

    """
    if task is None or task.standing.state == "off":
        return []
    standing = task.standing
    states = () if discovered is None else discovered.states
    count = Counter(each.verdict for each in states)
    return [
        {
            "name": "docker",
            "endpoint": standing.endpoint,
            "state": standing.state,
            "since": moment(wall - (trio.current_time() - standing.since)),
            "reason": standing.reason,
            "engine": None if standing.version is None else standing.version.engine,
            "api": None if standing.version is None else standing.version.api,
            "containers": {verdict: count[verdict] for verdict in ("used", "ignored", "bad")},
            "unread": standing.unread,
            "bad": [container_view(each) for each in states if each.verdict == "bad"],
        }
    ]


def container_view(state: ContainerState) -> View:
    """Return how a container stands that gives nothing, and why."""
    return {
        "name": state.name,
        "id": state.id[:12],
        "since": moment(state.since),
        "problems": list(map(str, state.problems)),
    }


def docker_line(task: DockerProviderTask, discovered: Discovered | None) -> list[str]:
    """Return what `systemctl status` is to say of containers: nothing as long as all is well."""
    parts = []
    if task.standing.state == "away":
        parts.append(f"the Docker Engine is away: {task.standing.reason}")
    bad = [each for each in (() if discovered is None else discovered.states) if each.verdict == "bad"]
    if bad:
        few = "a container is" if len(bad) == 1 else f"{len(bad)} containers are"
        parts.append(f"{few} bad: {bad[0].problems[0]}")
    return parts
