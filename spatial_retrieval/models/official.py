"""Official checkpoints as models of this package: saved with a card, loaded like any other."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spatial_retrieval.files import write_json
from spatial_retrieval.layers.rebuildable import Rebuildable
from spatial_retrieval.models.checkpoints import Adopted, adopt, load_checkpoint
from spatial_retrieval.models.checkpoints.adopted import join, rescale
from spatial_retrieval.models.head import Branch, Head
from spatial_retrieval.models.model import RetrievalModel
from spatial_retrieval.models.network_backbone import NetworkBackbone

__all__ = ["OfficialScales", "adopt_file", "official_model"]


class OfficialScales(Rebuildable, nn.Module):
    """Scales as the authors of a checkpoint join them, and what they learned to do afterwards.

    Args:
        join: "mean" or "max".
        power: with "mean": of the generalised mean.
        antialias: whether smaller scales get a low-pass.
        final: (B, D) → (B, D′) after the scales were joined.
    """

    def __init__(
        self,
        join: str = "mean",
        power: float = 1.0,
        antialias: bool = False,
        final: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.how, self.power, self.antialias = join, power, antialias
        self.final = nn.Identity() if final is None else final

    @property
    def out_features(self) -> int | None:
        """D′ if something was learned for the joined scales; None: they keep their length."""
        return getattr(self.final, "out_features", None)

    def rescale(self, images: Tensor, scale: float) -> Tensor:
        """(B, 3, h, w) → (B, 3, ≈ h·scale, ≈ w·scale)."""
        return rescale(images, scale, antialias=self.antialias)

    def forward(self, rows: Sequence[Tensor]) -> Tensor:
        """Unit rows (B, D) of each scale → (B, D′) unit rows."""
        joined = join(torch.stack(list(rows)), self.how, self.power)
        return nn.functional.normalize(self.final(joined), dim=1)


def official_model(adopted: Adopted) -> RetrievalModel:
    """An adopted checkpoint as a model; its ``card`` says where it comes from and its protocol."""
    for name, arguments in adopted.arguments.items():
        getattr(adopted, name).arguments = dict(arguments)
    backbone = NetworkBackbone(adopted.network)
    head = Head([Branch(backbone.layers, adopted.pooling, scale=None)], adopted.whitening)
    how = adopted.protocol
    scales = OfficialScales(how.join, how.power, how.antialias, adopted.final)
    model = RetrievalModel(backbone, head, multiscale=scales).eval()
    model.card = {**_plain(adopted.card), "kind": adopted.kind, "protocol": _plain(asdict(how))}
    return model


def adopt_file(
    path: str | Path, folder: str | Path | None = None, *, kind: str | None = None
) -> RetrievalModel:
    """Read an official checkpoint, and keep it as a folder that ``load_model`` reads.

    Args:
        path: ``.pth``, ``.pt`` or ``.safetensors``, as its authors publish it.
        folder: gets ``config.json``, ``model.safetensors`` and ``card.json``; None: nothing is
            written.
        kind: one of :data:`~spatial_retrieval.models.checkpoints.KINDS`; None recognises it.

    Raises:
        ValueError: if the file holds anything but tensors and plain values, is damaged, or isn't a
            checkpoint of a known project.
    """
    state, meta = load_checkpoint(path)
    model = official_model(adopt(state, meta, kind=kind))
    if folder is not None:
        model.save_pretrained(folder, include_backbone=True)
        write_json(Path(folder) / "card.json", model.card)
    return model


def _plain(value: Any) -> Any:
    """JSON's own types alone."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
