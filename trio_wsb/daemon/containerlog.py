"""What the log says of containers: who comes and goes, each problem once, when it comes, and that it is over."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from trio_wsb.config.discovery import ContainerState

log = structlog.stdlib.get_logger("trio_wsb.docker")


def log_containers(before: Sequence[ContainerState], after: Sequence[ContainerState]) -> None:
    """Log what has happened to containers; nothing for one that is as it was, nor for one that never counted.

    Args:
      before: how they stood, empty at the start.
      after: how they stand now.

    """
    known = {each.id: each for each in before}
    for each in after:
        old = known.pop(each.id, None)
        if each.verdict == "bad":
            if old is None or old.problems != each.problems:
                for problem in each.problems:
                    log.error("configuration problem", problem=str(problem))
                log.error("container not in force", container=each.name, problems=len(each.problems))
        elif each.verdict == "used":
            if old is None or old.verdict == "ignored":
                log.info("container in force", container=each.name, services=list(each.services))
            elif old.verdict == "bad":
                log.info("container in force again", container=each.name, services=list(each.services))
        elif old is not None and old.verdict != "ignored":
            log.info("container left out", container=each.name, reason=each.reason)
    for old in known.values():
        if old.verdict != "ignored":
            log.info("container gone", container=old.name)
