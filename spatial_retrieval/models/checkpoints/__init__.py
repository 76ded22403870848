"""Official checkpoints of the field, taken over: recognised by their names, every tensor used.

One file for each project. Each has ``recognises(state)`` and ``adopt(state, meta)``; here they are
put in the order in which they are tried.

Example::

    state, meta = load_checkpoint("gl18-tl-resnet101-gem-w.pth")
    adopted = adopt(state, meta)
    rows = describe_adopted(adopted, images, adopted.protocol.scales)
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from spatial_retrieval.models.checkpoints import (
    cirtorch,
    cosplace,
    cvnet,
    eigenplaces,
    megaloc,
    salad,
    solar,
    superglobal,
)
from spatial_retrieval.models.checkpoints.adopted import Adopted, Protocol, describe_adopted
from spatial_retrieval.models.checkpoints.read import load_checkpoint

__all__ = [
    "KINDS",
    "PROJECTS",
    "Adopted",
    "Protocol",
    "adopt",
    "describe_adopted",
    "load_checkpoint",
    "recognise",
]

PROJECTS = (megaloc, salad, solar, superglobal, cvnet, eigenplaces, cosplace, cirtorch)

# all that ``--as`` may say; next to each project's own kind, its variants
KINDS: Mapping[str, Callable[..., Adopted]] = {
    **{project.KIND: project.adopt for project in PROJECTS},
    "cirtorch-single": partial(cirtorch.adopt, learned="ss"),
    "cirtorch-plain": partial(cirtorch.adopt, learned=""),
    "superglobal-relup": partial(superglobal.adopt, relup=True),
    "superglobal-plain": partial(superglobal.adopt, additions=False),
    "superglobal-plain-relup": partial(superglobal.adopt, relup=True, additions=False),
}


def recognise(state: Mapping[str, Tensor]) -> str:
    """Say which project's network these tensors are, by their names.

    CosPlace's files have the form of EigenPlaces' and are taken for those.

    Raises:
        ValueError: if no project names its tensors so.
    """
    for project in PROJECTS:
        if project.recognises(state):
            return project.KIND
    names = ", ".join(list(state)[:3])
    kinds = ", ".join(project.KIND for project in PROJECTS)
    raise ValueError(f"expected a checkpoint of {kinds}; got one with tensors {names} …")


def adopt(
    state: Mapping[str, Tensor],
    meta: Mapping[str, Any] | None = None,
    *,
    kind: str | None = None,
) -> Adopted:
    """Take over an official checkpoint.

    Args:
        state: its tensors by their official names, see :func:`load_checkpoint`.
        meta: its metadata.
        kind: one of :data:`KINDS`; None recognises it.

    Raises:
        ValueError: if the kind is unknown, or a tensor is unknown, missing, or of another shape.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"expected a kind among {', '.join(KINDS)}, got {kind!r}")
    return KINDS[kind or recognise(state)](state, meta)
