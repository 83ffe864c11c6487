"""Reading configuration text as the daemon and ``check`` do, without files."""

from __future__ import annotations

from trio_wsb.config.document import Document, read_document
from trio_wsb.config.merge import Part, merge
from trio_wsb.config.model import Config
from trio_wsb.config.problems import Problem
from trio_wsb.config.validate import Names

FILE = "f.yaml"


def document(text: str | bytes, names: Names | None = None, *, libyaml: bool = True) -> Document:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    read = read_document(data, FILE, libyaml=libyaml)
    if read.config is not None:
        (read.problems,) = merge([Part(read)]).judge(names or Names()).values()
    return read


def problems(text: str | bytes, names: Names | None = None) -> list[Problem]:
    return sorted(document(text, names).problems, key=lambda problem: problem.position)


def lines(text: str | bytes, names: Names | None = None) -> list[str]:
    """Return the problems as ``check`` prints them."""
    return [f"{each}{' [warning]' * (each.severity == 'warning')}" for each in problems(text, names)]


def config(text: str) -> Config:
    """Return the configuration of a text without problems."""
    read = document(text)
    assert read.problems == []
    assert read.config is not None
    return read.config


SERVERS = """\
http:
  services:
    chat:
      loadBalancer:
        servers:
"""
