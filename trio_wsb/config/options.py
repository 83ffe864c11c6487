"""How the model documents its fields: what an option means, its bounds, and its name in the file."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field

from trio_wsb.middleware.options import Bound


def option(
    doc: str,
    default: Any = ...,
    *,
    key: str | None = None,
    reload: str = "yes",
    check: Bound | None = None,
    secret: bool = False,
    switch: bool = False,
    refers: str | None = None,
) -> Any:
    """Return an attrs field with its documentation.

    Args:
      doc: what the option does, one or two sentences, ending with a full stop.
      default: the value when the key is absent, or an `attrs.Factory`; without one the key is required.
      key: the YAML name where it is not the field's name in camelCase.
      reload: "yes" when a reload applies a change, "new sessions" when it applies to sessions that open
        from then on, "restart" when only a restart does.
      check: a bound that a written value must keep.
      secret: the value is never shown, neither in a problem nor in the effective configuration.
      switch: the section may also be written `true`, which means all of its defaults, or `false`, which means none.
      refers: the value is a name, or names, of what stands under this key path, perhaps in another file: "http.services".

    """
    metadata = {
        "doc": doc,
        "key": key,
        "reload": reload,
        "check": check,
        "secret": secret,
        "switch": switch,
        "refers": refers,
    }
    if default is ...:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


def key_of(attribute: Attribute[Any]) -> str:
    """Return the YAML name of a field of the model."""
    head, *rest = attribute.name.split("_")
    return attribute.metadata.get("key") or head + "".join(word.capitalize() for word in rest)
