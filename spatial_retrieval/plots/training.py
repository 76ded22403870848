"""How a training goes: loss, learning rate and held-out scores, live in a notebook."""

import signal
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from spatial_retrieval.plots.notebook import mimebundle
from spatial_retrieval.plots.style import COLORS, base_layout

__all__ = ["LiveTraining", "training_figure"]

_OWN = ("step", "loss", "lr", "norm")


def training_figure(
    history: Sequence[Mapping[str, float]], *, steps: int | None = None, height: int = 320
) -> go.Figure:
    """Loss and learning rate next to the validation scores.

    Args:
        history: rows as :class:`~spatial_retrieval.train.config.TrainResult` holds them.
        steps: length of the axis, so that a live figure doesn't jump; None: as far as it went.
    """
    fig = make_subplots(
        rows=1,
        cols=2,
        specs=[[{"secondary_y": True}, {}]],
        horizontal_spacing=0.14,
        subplot_titles=("loss and learning rate", "held-out data, %"),
    )
    at = [row["step"] for row in history]
    loss, lr = ([row[name] for row in history] for name in ("loss", "lr"))
    fig.add_scatter(x=at, y=loss, name="loss", line={"color": COLORS[0]}, row=1, col=1)
    dotted = {"color": COLORS[6], "dash": "dot"}
    fig.add_scatter(x=at, y=lr, name="learning rate", line=dotted, row=1, col=1, secondary_y=True)
    names = list(dict.fromkeys(key for row in history for key in row if key not in _OWN))
    for i, name in enumerate(names):
        points = [(row["step"], 100 * row[name]) for row in history if name in row]
        fig.add_scatter(
            x=[step for step, _ in points],
            y=[value for _, value in points],
            name=name,
            mode="lines+markers",
            line={"color": COLORS[1 + i % 5]},
            row=1,
            col=2,
        )
    base_layout(fig, height=height)
    fig.update_layout(margin={"t": 40}, legend={"orientation": "h", "y": -0.2})
    fig.update_xaxes(title="step", range=[0, steps] if steps else None)
    fig.update_yaxes(showgrid=False, tickformat=".1e", nticks=5, secondary_y=True)
    return fig


class LiveTraining:
    """A callback for :func:`~spatial_retrieval.train.loop.train` that redraws one figure in a cell.

    Args:
        steps: length of the axis.
        every: steps between two drawings; the last row is drawn by every call of ``draw``.
        interrupt_at: press the stop button after so many steps, to show what happens; 0: never.

    Example:
        >>> live = LiveTraining(steps=200)
        >>> live([{"step": 1, "loss": 2.0, "lr": 0.1}])
        >>> len(live.figure.data)
        2
    """

    def __init__(self, *, steps: int, every: int = 10, interrupt_at: int = 0) -> None:
        if steps < 1 or every < 1:
            raise ValueError(f"expected steps and every of at least 1, got {steps} and {every}")
        self.steps, self.every, self.interrupt_at = steps, every, interrupt_at
        self.figure = go.Figure()
        self._handle = None

    def __call__(self, history: Sequence[Mapping[str, float]]) -> None:
        """Draw when it is time to."""
        last = history[-1]["step"]
        due = last % self.every == 0 or last in (1, self.steps, self.interrupt_at)
        if due or len(history[-1]) > 4:
            self.draw(history, still=last in (self.steps, self.interrupt_at))
        if last == self.interrupt_at:
            signal.raise_signal(signal.SIGINT)

    def draw(self, history: Sequence[Mapping[str, float]], *, still: bool = True) -> None:
        """Draw now; outside a notebook only ``figure`` changes.

        Args:
            history: rows so far.
            still: as the default renderer draws, slow still picture included; otherwise live only.
        """
        self.figure = training_figure(history, steps=self.steps)
        try:
            from IPython import get_ipython
            from IPython.display import display
        except ImportError:
            return
        if get_ipython() is None:
            return
        content = mimebundle(self.figure, still=still)
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)
