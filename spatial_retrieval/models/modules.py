"""Modules as JSON and back: each names its class by import path, next to its arguments.

A folder from elsewhere may name only classes of trusted packages, and only ``nn.Module`` classes
that are defined there; nothing else is imported, let alone called.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

__all__ = ["TRUSTED", "build_module", "describe_module"]

TRUSTED = ("spatial_retrieval.layers", "spatial_retrieval.models")
_TORCH = {
    nn.Linear: ("in_features", "out_features"),
    nn.Identity: (),
}


def describe_module(module: nn.Module) -> dict[str, Any]:
    """A module's class and arguments, as JSON can hold them.

    Raises:
        ValueError: if the module does not tell what it was built with, see
            :class:`~spatial_retrieval.layers.rebuildable.Rebuildable`.
    """
    kind = type(module)
    path = f"{kind.__module__}.{kind.__qualname__}"
    if kind in _TORCH:
        arguments = {name: getattr(module, name) for name in _TORCH[kind]}
    elif kind is nn.Sequential:
        return {"class": path, "modules": [describe_module(part) for part in module]}
    elif isinstance(getattr(module, "arguments", None), Mapping):
        arguments = module.arguments
    else:
        raise ValueError(
            f"expected a module that keeps its constructor's arguments in .arguments, so that it "
            f"can be saved; got {path} (inherit spatial_retrieval.layers.rebuildable.Rebuildable)"
        )
    return {"class": path, **{name: _plain(value, path) for name, value in arguments.items()}}


def build_module(value: Mapping[str, Any], *, trusted: Sequence[str] = TRUSTED) -> nn.Module:
    """Build what :func:`describe_module` described; its weights are new.

    Args:
        value: "class" and the constructor's arguments.
        trusted: packages whose modules may be named.

    Raises:
        ValueError: if the class isn't one of these packages', or doesn't take the arguments.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("class"), str):
        raise ValueError(f'expected a module as {{"class": …, arguments}}, got {value!r:.80}')
    arguments = {
        name: build_module(part, trusted=trusted) if _is_module(part) else part
        for name, part in value.items()
        if name not in ("class", "modules")
    }
    if value["class"] == "torch.nn.modules.container.Sequential":
        parts = value.get("modules", ())
        return nn.Sequential(*(build_module(part, trusted=trusted) for part in parts))
    kind = _class_of(value["class"], trusted)
    try:
        return kind(**arguments)
    except TypeError as error:
        raise ValueError(f"{value['class']}: {error}") from error


def _class_of(path: str, trusted: Sequence[str]) -> type[nn.Module]:
    for kind in _TORCH:
        if path == f"{kind.__module__}.{kind.__qualname__}":
            return kind
    package, _, name = path.rpartition(".")
    if not any(package == root or package.startswith(f"{root}.") for root in trusted):
        raise ValueError(
            f"expected a class of {', '.join(trusted)}; got {path!r}. If you trust its package, "
            'name it: load_model(…, trusted=("package",))'
        )
    try:
        kind = getattr(importlib.import_module(package), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no such class: {path!r} ({error})") from error
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)) or kind.__module__ != package:
        raise ValueError(f"expected an nn.Module that is defined in {package}, got {path!r}")
    return kind


def _is_module(value: object) -> bool:
    return isinstance(value, Mapping) and "class" in value


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, nn.Module):
        return describe_module(value)
    if isinstance(value, list | tuple):
        return [_plain(part, path) for part in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"{path}: expected plain values as arguments, got {type(value).__name__}")
