"""Modules that remember what they were built with, so that a saved model can name them."""

import inspect
from typing import Any, Self

__all__ = ["Rebuildable"]


class Rebuildable:
    """Base class next to ``nn.Module``: keeps the constructor's arguments in ``arguments``.

    ``type(module)(**module.arguments)`` is a module of the same shape. Arguments have to be plain
    values (numbers, strings, lists of them) or modules that can be rebuilt themselves.

    Example:
        >>> from torch import nn
        >>> class Scale(Rebuildable, nn.Module):
        ...     def __init__(self, by: float = 2.0) -> None:
        ...         super().__init__()
        >>> Scale(3.0).arguments
        {'by': 3.0}
    """

    arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keep the arguments, then let the constructors run."""
        self = super().__new__(cls)
        if args or kwargs:  # copies and pickles call this without arguments and bring their own
            bound = inspect.signature(cls).bind(*args, **kwargs)
            self.__dict__["arguments"] = dict(bound.arguments)
        else:
            self.__dict__["arguments"] = {}
        return self
