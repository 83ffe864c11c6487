"""Asking a running daemon through its control socket: the client side, and what to say when nobody answers."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import socket
import stat
from typing import Any
from urllib.parse import urlencode

import click
from attrs import frozen
from click.shell_completion import CompletionItem

from trio_wsb.addresses import DEFAULT_CONTROL_SOCKET

ENVIRONMENT = "TRIO_WSB_SOCKET"

ANSWER_TIMEOUT = 10.0
"""Seconds that a daemon may take to answer what it only has to look up."""

_COMPLETION_TIMEOUT = 0.5

socket_option = click.option(
    "--socket",
    "path",
    type=click.Path(readable=False),
    envvar=ENVIRONMENT,
    default=DEFAULT_CONTROL_SOCKET,
    show_default=True,
    show_envvar=True,
    help="The daemon's control socket (control.socket in its configuration).",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the daemon's answer as JSON.")


class UnreachableError(click.ClickException):
    """There is no daemon to ask; the message says what to do."""

    exit_code = 2


@frozen
class Answer:
    """What the daemon answered."""

    status: int
    document: Any


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(
    path: str,
    method: str,
    target: str,
    parameters: dict[str, str] | None = None,
    *,
    document: dict[str, object] | None = None,
    timeout: float = ANSWER_TIMEOUT,
) -> Answer:
    """Send one request to the daemon whose control socket is at `path` and return its answer.

    `parameters` go into the query, `document` becomes a JSON body.

    Raises:
      UnreachableError: nobody answers there, or not as the daemon does.

    """
    connection = _UnixConnection(path, timeout)
    try:
        query = f"?{urlencode(parameters)}" if parameters else ""
        body = None if document is None else json.dumps(document)
        connection.request(method, f"{target}{query}", body)
        response = connection.getresponse()
        return Answer(response.status, json.loads(response.read()))
    except TimeoutError:
        raise UnreachableError(
            f"the daemon at {path} does not answer within {timeout:g} s; it may be overloaded or stopped (SIGSTOP)"
        ) from None
    except (http.client.HTTPException, ValueError, ConnectionError) as error:
        if isinstance(error, ConnectionRefusedError):
            raise UnreachableError(_unreachable(error, path)) from None
        raise UnreachableError(f"what listens at {path} does not answer as the daemon does") from None
    except OSError as error:
        raise UnreachableError(_unreachable(error, path)) from None
    finally:
        connection.close()


def ask_or_fail(
    path: str,
    method: str,
    target: str,
    parameters: dict[str, str] | None = None,
    *,
    document: dict[str, object] | None = None,
) -> Any:
    """Return the document that the daemon answers a request with.

    Raises:
      UnreachableError: as `ask` does.
      click.ClickException: the daemon refuses; the message is its reason.

    """
    answer = ask(path, method, target, parameters, document=document)
    if answer.status != 200:
        raise click.ClickException(refusal(answer))
    return answer.document


def refusal(answer: Answer) -> str:
    """Return why the daemon did not do what it was asked for."""
    document = answer.document
    reason = document.get("error") if isinstance(document, dict) else None
    return str(reason or f"the daemon answered {answer.status}")


def complete_from_status(ctx: click.Context, section: str, key: str, incomplete: str) -> list[CompletionItem]:
    """Return what `key` of the things in a section of the daemon's status can complete; nothing without a daemon."""
    path = ctx.params.get("path") or os.environ.get(ENVIRONMENT) or DEFAULT_CONTROL_SOCKET
    try:
        found = ask(str(path), "GET", "/status", timeout=_COMPLETION_TIMEOUT).document[section]
        values = sorted({str(each[key]) for each in found})
    except (UnreachableError, LookupError, TypeError):
        return []
    return [CompletionItem(value) for value in values if value.startswith(incomplete)]


def complete_backend(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the running daemon's backends that `incomplete` may become."""
    return complete_from_status(ctx, "backends", "url", incomplete)


def complete_service(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the running daemon's services that `incomplete` may become."""
    return complete_from_status(ctx, "services", "name", incomplete)


def _unreachable(error: OSError, path: str) -> str:
    if isinstance(error, FileNotFoundError):
        return (
            f"there is no daemon at {path}: is it running (systemctl status trio-wsb)? "
            f"If its configuration names another control.socket, name it with --socket or {ENVIRONMENT}"
        )
    if isinstance(error, ConnectionRefusedError):
        return f"nobody listens at {path} any more: the daemon that made it has ended"
    if isinstance(error, PermissionError):
        return (
            f"you may not use {path}{_owner(path)}: run this with sudo, "
            "or let a group in with control.group in the daemon's configuration"
        )
    if isinstance(error, BlockingIOError):
        return f"the daemon at {path} has no time for another connection"
    return f"cannot connect to {path}: {error.strerror or error}"


def _owner(path: str) -> str:
    """Return whose socket it is and its mode, as far as one may see."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a name that the shell passed on, whatever it is
        owner = pwd.getpwuid(status.st_uid).pw_name
    except (OSError, KeyError):
        return ""
    return f" (it belongs to {owner}, mode {stat.S_IMODE(status.st_mode):04o})"
