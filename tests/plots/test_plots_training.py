import plotly.io as pio
import pytest

from spatial_retrieval.plots.training import LiveTraining, training_figure

HISTORY = [{"step": i + 1, "loss": 3 - i, "lr": 0.1, "norm": 1.0} for i in range(3)]
HISTORY[1] |= {"twins/map": 0.25, "twins/twin": 0.6}


def test_curves_hold_the_history_and_scores_in_percent():
    curves = {trace.name: trace for trace in training_figure(HISTORY).data}
    assert list(curves) == ["loss", "learning rate", "twins/map", "twins/twin"]
    assert list(curves["loss"].y) == [3, 2, 1]
    assert list(curves["twins/map"].x) == [2] and list(curves["twins/map"].y) == [25]


def test_the_live_figure_draws_when_it_is_time():
    live = LiveTraining(steps=30, every=10)
    drawn = []
    live.draw = lambda history, still: drawn.append((history[-1]["step"], still))
    rows = [{"step": i + 1, "loss": 1.0, "lr": 0.1, "norm": 1.0} for i in range(30)]
    rows[13]["twins/map"] = 0.5
    for i in range(30):
        live(rows[: i + 1])
    assert drawn == [(1, False), (10, False), (14, False), (20, False), (30, True)]


def test_the_stop_button_is_pressed_where_asked():
    live = LiveTraining(steps=30, every=10, interrupt_at=2)
    drawn = []
    live.draw = lambda history, still: drawn.append((history[-1]["step"], still))
    live(HISTORY[:1])
    with pytest.raises(KeyboardInterrupt):
        live([HISTORY[0], {**HISTORY[0], "step": 2}])
    live(HISTORY)
    assert drawn == [(1, False), (2, True)]


def test_in_a_notebook_one_display_is_updated(monkeypatch):
    import IPython
    import IPython.display

    shown, updated = [], []

    class Handle:
        def update(self, content, raw):
            updated.append(content)

    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(
        IPython.display,
        "display",
        lambda content, raw, display_id: shown.append(content) or Handle(),
    )
    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")
    live = LiveTraining(steps=3, every=1)
    for i in range(3):
        live(HISTORY[: i + 1])
    assert len(shown) == 1 and len(updated) == 2
    assert all("application/vnd.plotly.v1+json" in content for content in (*shown, *updated))
    assert len(live.figure.data) == 4


def test_bad_lengths():
    with pytest.raises(ValueError, match="steps and every"):
        LiveTraining(steps=0)
