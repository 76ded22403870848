"""Twin Façades, the rendered benchmark of spatial context: renderer, data, scores, baselines."""
