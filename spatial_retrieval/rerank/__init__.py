"""Re-rankers: each takes a ranking and returns a ranking, permuting its top n only."""
