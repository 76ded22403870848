"""Ground truth meets a ranking here and nowhere else."""
