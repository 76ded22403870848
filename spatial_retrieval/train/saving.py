"""What a run leaves on disk: checkpoints to go on from, and in the end model and history."""

import json
import logging
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from spatial_retrieval.files import write_json
from spatial_retrieval.train.checkpoint import (
    CheckpointError,
    check_state,
    load_state,
    save_checkpoint,
    shapes_of,
)
from spatial_retrieval.train.config import TrainResult
from spatial_retrieval.train.heads import save_trained
from spatial_retrieval.train.run import Run
from spatial_retrieval.train.setup import data_digest

__all__ = ["finish", "resume", "save"]

_STATEFUL = ("model", "objective", "optimizer", "schedule", "scaler")
_PROGRESS = ("step", "history", "seconds", "best", "best_step", "without_gain")
_FREE = ("output", "workers", "validate_every", "checkpoint_every", "patience")
log = logging.getLogger(__name__)


def save(run: Run) -> None:
    """Write ``last.pt``: everything that going on needs."""
    if run.is_main:
        harder = getattr(run.source, "harder", None)
        state = {name: getattr(run, name).state_dict() for name in _STATEFUL}
        state |= {name: getattr(run, name) for name in _PROGRESS}
        state |= {
            "config": asdict(run.config),
            "shapes": shapes_of(run.model),
            "data": data_digest(run.data.train),
            "harder": None if harder is None else harder.tolist(),
            "random": {"seed": run.config.seed, "torch": torch.get_rng_state()},
        }
        save_checkpoint(run.folder / "last.pt", state)
    run.accelerator.wait_for_everyone()


def resume(run: Run) -> None:
    """Go on from ``last.pt``, if there is one.

    Raises:
        CheckpointError: if it is damaged, or of another model, data or config.
    """
    path = run.folder / "last.pt"
    if not path.exists():
        return
    state = load_state(path)
    check_state(path, "model", shapes_of(run.model), state["shapes"])
    check_state(path, "set of data", data_digest(run.data.train), state["data"])
    own, found = _compared(asdict(run.config)), _compared(state["config"])
    check_state(path, "configuration", own, found)
    for name in _STATEFUL:
        getattr(run, name).load_state_dict(state[name])
    for name in _PROGRESS:
        setattr(run, name, state[name])
    torch.set_rng_state(state["random"]["torch"])
    if state["harder"] is not None:
        run.source.harder = np.asarray(state["harder"])
    log.info("going on at step %d of %d (%s)", run.step, run.config.steps, path)


def finish(run: Run, *, interrupted: bool) -> TrainResult:
    """Put the best weights into the model, save it, and say what came of the run.

    Raises:
        CheckpointError: if ``best.pt`` is not of the best step of this run.
    """
    best = run.folder / "best.pt"
    if run.best_step:
        state = load_state(best)
        if state["step"] != run.best_step:
            raise CheckpointError(
                f"{best}: expected the weights of step {run.best_step}, got {state['step']}; "
                "train anew with resume=False"
            )
        run.model.load_state_dict(state["model"])
    run.model.eval()
    path = best if run.best_step else run.folder / "last.pt"
    if hasattr(run.model, "save_pretrained"):
        path = run.folder / "model"
        if run.is_main:
            save_trained(run.model, path)
    if run.is_main:
        write_json(run.folder / "history.json", run.history)
        write_json(run.folder / "train.json", asdict(run.config))
    run.accelerator.wait_for_everyone()
    return TrainResult(
        run.history, run.best_step or run.step, run.best, path, interrupted, run.seconds
    )


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps({k: v for k, v in config.items() if k not in _FREE}))
