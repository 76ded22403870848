"""The formulas: pooling, whitening, smoothing, refinement, attention. One file each.

Symbols, agreed once for the whole package::

    B  batch            C  channels of a feature map      H, W  its grid        N = H·W  cells
    D  descriptor size  K  kernel side, or graph nodes    Q  queries            M  database images

A feature map is ``x: (B, C, H, W)``; a set of descriptors is ``(N, D)``, one per row, unit length.
"""
