"""Every figure of the notebooks and the demo: plotly figures, and overlays as images."""
