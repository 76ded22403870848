"""An official state dict sorted into the parts of a model: every tensor used, or named.

Rules say what becomes of a name. They are pairs (pattern, new name), tried in order on the whole
name; a new name is "PART.NAME", or "" for a tensor that describing a photograph does not need.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Rule", "Sorted", "sort_out"]

Rule = tuple[str, str | Callable[[re.Match[str]], str]]


@dataclass(frozen=True, slots=True, eq=False)
class Sorted:
    """A state dict by parts.

    Attributes:
        parts: part → name inside it → tensor.
        official: "PART.NAME" → the name in the checkpoint.
        left_out: names of the tensors that are not needed.
    """

    parts: dict[str, dict[str, Tensor]]
    official: dict[str, str]
    left_out: tuple[str, ...]

    def tensor(self, part: str, name: str) -> Tensor:
        """One tensor; a ValueError if it is missing."""
        if name not in self.parts.get(part, {}):
            raise ValueError(f"the checkpoint lacks what becomes {part}.{name}")
        return self.parts[part][name]

    def build(self, part: str, kind: type[nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
        """Build a part in evaluation mode, without drawing random weights, and fill it.

        Raises:
            ValueError: if a tensor is missing, left over, or of another shape.
        """
        with torch.device("meta"):
            module = kind(**arguments)
        found = dict(self.parts.get(part, {}))
        expected = module.state_dict()
        for name in expected:  # files older than PyTorch 0.4.1 don't count batches
            if name.endswith("num_batches_tracked"):
                found.setdefault(name, torch.zeros((), dtype=torch.int64))
        self._check(part, {name: tuple(v.shape) for name, v in expected.items()}, found)
        values = {name: found[name].detach().to(v.dtype).clone() for name, v in expected.items()}
        module.load_state_dict(values, assign=True)
        return module.eval()

    def _check(
        self, part: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]
    ) -> None:
        for name in sorted(expected.keys() ^ found.keys()):
            where = self.official.get(f"{part}.{name}", f"what becomes {part}.{name}")
            what = "lacks" if name in expected else "has, beyond what this network takes,"
            raise ValueError(f"the checkpoint {what} {where}")
        for name, shape in expected.items():
            if (got := tuple(found[name].shape)) != shape:
                where = self.official.get(f"{part}.{name}", f"{part}.{name}")
                raise ValueError(f"expected {where} of shape {shape}, got {got}")


def sort_out(state: Mapping[str, Tensor], rules: Sequence[Rule], kind: str) -> Sorted:
    """Sort a state dict by rules.

    Raises:
        ValueError: if no rule knows a name, two names become one, or a tensor is empty.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    official: dict[str, str] = {}
    left_out: list[str] = []
    for name, value in state.items():
        new = _renamed(name, rules, kind)
        if not value.numel():
            raise ValueError(f"expected numbers in {name}, got shape {tuple(value.shape)}")
        if not new:
            left_out.append(name)
            continue
        if new in official:
            raise ValueError(f"{official[new]} and {name} are the same tensor of {kind}: {new}")
        official[new] = name
        part, _, inner = new.partition(".")
        parts.setdefault(part, {})[inner] = value
    return Sorted(parts, official, tuple(left_out))


def _renamed(name: str, rules: Sequence[Rule], kind: str) -> str:
    for pattern, new in rules:
        if match := re.fullmatch(pattern, name):
            return match.expand(new) if isinstance(new, str) else new(match)
    raise ValueError(f"unknown tensor {name} in a checkpoint of the kind {kind}")
