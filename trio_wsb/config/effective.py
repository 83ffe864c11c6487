"""The effective configuration as text: every default filled in, the short form written out, secrets left out.

Reading the text again gives the same configuration, but for secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import yaml

from trio_wsb.addresses import BackendURL
from trio_wsb.config.constraints import Constraints
from trio_wsb.config.model import Config, Duration, key_of
from trio_wsb.config.scalars import resolve
from trio_wsb.config.template import RuleTemplate
from trio_wsb.middleware.expression import Expression
from trio_wsb.routing.regex import Regex
from trio_wsb.routing.rules import Rule
from trio_wsb.units import Percent, Rate, format_duration, format_percent, format_rate

REDACTED = "REDACTED"


def effective(config: Any) -> dict[str, object]:
    """Return an object of the model as plain values under their YAML names; what is None is left out."""
    plain: dict[str, object] = {}
    for attribute in attrs.fields(attrs.resolve_types(type(config))):
        value = getattr(config, attribute.name)
        if value is None:
            if attribute.metadata.get("switch") and attribute.default is not None:
                plain[key_of(attribute)] = False  # left out it would be on
            continue
        secret = attribute.metadata["secret"] and value
        plain[key_of(attribute)] = _redacted(value) if secret else _plain(value, attribute.type)
    return plain


def to_yaml(config: Config) -> str:
    """Return `config` as the YAML text of a file that means the same."""
    text: str = yaml.dump(
        effective(config),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=200,
    )
    return text


def _redacted(value: object) -> object:
    return dict.fromkeys(value, REDACTED) if isinstance(value, Mapping) else REDACTED


def _plain(value: Any, wanted: Any) -> object:
    if wanted in {Duration, Duration | None}:
        return format_duration(value)
    if wanted in {Rate, Rate | None}:
        return format_rate(value)
    if wanted in {Percent, Percent | None}:
        return format_percent(value)
    if isinstance(value, Mapping):
        return {name: _plain(each, None) for name, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each, None) for each in value]
    if isinstance(value, BackendURL):
        return value.written or str(value)  # cookies depend on how it is written
    if isinstance(value, (Rule, Expression, Constraints, RuleTemplate)):
        return value.text
    if isinstance(value, Regex):
        return value.pattern
    if attrs.has(type(value)) and all("doc" in each.metadata for each in attrs.fields(type(value))):
        return effective(value)
    return value if isinstance(value, (str, bool, int, float)) else str(value)


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that YAML 1.2 would read as something else."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        """Write a value out wherever it occurs."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if text and resolve(text) == text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _represent_text)
