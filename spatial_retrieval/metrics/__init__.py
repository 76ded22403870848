"""Scores: pure functions of arrays. Ground truth meets a ranking here and in ``evaluate``."""
