"""The parts of training: sets, samplers, objectives, checkpoints, feature caches, validation.

The loop itself is :mod:`spatial_retrieval.train.loop`. Everything random in a run is a function of
(seed, step, position in the batch), so a checkpoint needs no generator's state beyond its step
number, and a resumed, a distributed and an uninterrupted run draw the same numbers.
"""

from spatial_retrieval.train.config import TrainConfig, TrainResult
from spatial_retrieval.train.loop import train

__all__ = ["TrainConfig", "TrainResult", "train"]
