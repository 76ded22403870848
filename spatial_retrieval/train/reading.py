"""Configurations from JSON: strict keys and types, and the words that older files used."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

__all__ = ["read_strictly", "renamed"]

T = TypeVar("T")


def read_strictly(kind: type[T], value: Mapping[str, Any], where: str) -> T:
    """Make a dataclass from JSON values; nothing unknown, missing or of another type passes.

    Args:
        kind: a dataclass whose ``__pydantic_config__`` forbids extra keys.
        where: what is read, for the message.

    Raises:
        ValueError: naming each key that is wrong, and why.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        reasons = (_reason(item) for item in error.errors(include_url=False))
        raise ValueError(f"{where}: {'; '.join(reasons)}") from None


def renamed(
    value: Mapping[str, Any], names: Mapping[str, str], gone: Mapping[str, Any]
) -> dict[str, Any]:
    """Bring the keys of an older file up to date.

    Args:
        value: what the file says.
        names: old key → today's.
        gone: key that no longer exists → the value with which it had no effect.

    Raises:
        ValueError: if a key that no longer exists had an effect.
    """
    for key, without_effect in gone.items():
        if value.get(key, without_effect) != without_effect:
            raise ValueError(f"{key!r} is no longer offered; delete the key, or use version 0.1.0")
    return {names.get(key, key): item for key, item in value.items() if key not in gone}


def _reason(item: Mapping[str, Any]) -> str:
    key = ".".join(map(str, item["loc"]))
    if item["type"] == "unexpected_keyword_argument":
        return f"unknown key {key}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message
