"""DINOv2 as its authors run it: position embeddings are stretched with an offset of 0.1 cells.

The transformer is timm's; what differs from timm is how 37 × 37 positions become H × W: bicubic by
the factors (H + 0.1) / 37 and (W + 0.1) / 37, not antialiased, and not at all for 37 × 37.
Oquab et al.: *DINOv2: Learning Robust Visual Features without Supervision*, 2023 (arXiv
2304.07193); code and weights Apache-2.0.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spatial_retrieval.layers.rebuildable import Rebuildable
from spatial_retrieval.models.checkpoints.adopted import IMAGENET_MEAN, IMAGENET_STD
from spatial_retrieval.models.checkpoints.tensors import Rule

__all__ = ["DINO_RULES", "DINOv2", "dino_arguments", "stretch"]

_PATCH = 14
_HEAD_WIDTH = 64  # of every DINOv2
DINO_RULES: tuple[Rule, ...] = (
    (r"backbone\.(?:model\.)?mask_token", ""),  # only training masks patches
    (r"backbone\.(?:model\.)?(.+)", r"network.vit.\1"),
)


def stretch(positions: Tensor, height: int, width: int) -> Tensor:
    """Position embeddings (1, G·G, C) of a square grid → (1, height·width, C)."""
    side = round(positions.shape[1] ** 0.5)
    if side == height == width:
        return positions
    grid = positions.transpose(1, 2).unflatten(2, (side, side))
    factors = ((height + 0.1) / side, (width + 0.1) / side)
    grid = nn.functional.interpolate(grid.float(), scale_factor=factors, mode="bicubic")
    return grid.flatten(2).transpose(1, 2).to(positions.dtype)


class DINOv2(Rebuildable, nn.Module):
    """A transformer with patches of 14 pixels, read as a map and a class token.

    An image whose sides are not multiples of 14 is resized to the nearest ones (bilinear,
    antialiased), as MegaLoc does.

    Args:
        channels: width of the tokens, a multiple of 64.
        depth: number of blocks.
        grid: side of the grid that the position embeddings were learned for.
    """

    def __init__(self, *, channels: int = 768, depth: int = 12, grid: int = 37) -> None:
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        self.vit = VisionTransformer(
            img_size=grid * _PATCH,
            patch_size=_PATCH,
            embed_dim=channels,
            depth=depth,
            num_heads=channels // _HEAD_WIDTH,
            init_values=1e-5,
            num_classes=0,
        )
        self.mean, self.std = IMAGENET_MEAN, IMAGENET_STD
        self.channels, self.stride = channels, _PATCH

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, h, w) normalised → map (B, C, H, W) and class token (B, C, 1, 1)."""
        height, width = (max(1, round(side / _PATCH)) for side in x.shape[-2:])
        size = (height * _PATCH, width * _PATCH)
        if size != tuple(x.shape[-2:]):
            x = nn.functional.interpolate(x, size, mode="bilinear", antialias=True)
        cells = self.vit.patch_embed.proj(x).flatten(2).transpose(1, 2)  # (B, N, C)
        token = self.vit.cls_token + self.vit.pos_embed[:, :1]  # (1, 1, C)
        cells = cells + stretch(self.vit.pos_embed[:, 1:], height, width)
        tokens = torch.cat([token.expand(len(x), -1, -1), cells], dim=1)
        for block in self.vit.blocks:
            tokens = block(tokens)
        tokens = self.vit.norm(tokens).transpose(1, 2)  # (B, C, 1 + N)
        return tokens[:, :, 1:].unflatten(2, (height, width)), tokens[:, :, :1, None]


def dino_arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read :class:`DINOv2`'s arguments off its tensors.

    Raises:
        ValueError: if they are not of a DINOv2.
    """
    positions = tensors.get("vit.pos_embed", torch.empty(0))
    depth = len({name.split(".")[2] for name in tensors if name.startswith("vit.blocks.")})
    side = round(max(0, positions.shape[1] - 1) ** 0.5) if positions.ndim == 3 else 0
    channels = positions.shape[-1]
    if not side or side**2 + 1 != positions.shape[1] or channels % _HEAD_WIDTH or not channels:
        raise ValueError(
            "expected position embeddings (1, 1 + G·G, 64·heads) of a DINOv2, got "
            f"{tuple(positions.shape)}"
        )
    return {"channels": channels, "depth": depth, "grid": side}
