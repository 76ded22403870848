r"""Losses that pytorch-metric-learning does not have.

Second-order similarity (SOS): a query and its positive shall be equally far from every negative,

.. math:: L = \frac{1}{Q} \sqrt{\sum_{q}\sum_{r}
    \big(\lVert a_q - n_{qr}\rVert^2 - \lVert p_q - n_{qr}\rVert^2\big)^2}

Tian, Yu, Fan, Wu, Heijnen, Balntas: *SOSNet*, CVPR 2019. For retrieval, on squared distances as
here: Ng, Balntas, Tian, Mikolajczyk: *SOLAR*, ECCV 2020.
"""

import torch
from torch import Tensor

__all__ = ["second_order_similarity"]


def second_order_similarity(anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """The SOS loss, to be added to a first-order one, with which alone it is of use.

    Args:
        anchors: (Q, D), descriptors a of the queries.
        positives: (Q, D), one p each.
        negatives: (Q, R, D), R negatives n each.

    Returns:
        A scalar ≥ 0; its gradient is finite, also where it is 0.

    Raises:
        ValueError: if the shapes do not belong together.

    Example:
        >>> a, p = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> second_order_similarity(a, p, torch.tensor([[[-1.0, 0.0]]]))
        tensor(2.)
    """
    q, d = anchors.shape if anchors.ndim == 2 else (0, 0)
    fits = positives.shape == anchors.shape and negatives.ndim == 3
    if not q or not fits or (negatives.shape[0], negatives.shape[2]) != (q, d):
        raise ValueError(
            "expected anchors (Q, D), positives (Q, D) and negatives (Q, R, D), got "
            f"{tuple(anchors.shape)}, {tuple(positives.shape)} and {tuple(negatives.shape)}"
        )
    from_anchor = (anchors.unsqueeze(1) - negatives).square().sum(-1)  # (Q, R)
    from_positive = (positives.unsqueeze(1) - negatives).square().sum(-1)
    return torch.linalg.vector_norm(from_anchor - from_positive) / q
