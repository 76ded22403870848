"""The result card of an ``evaluate`` call."""

import argparse
import shlex
from typing import Any

from spatial_retrieval.evaluate.cards import ResultCard
from spatial_retrieval.evaluate.published import landmark_overlap
from spatial_retrieval.evaluate.runs import Timing
from spatial_retrieval.models import RetrievalModel

__all__ = ["card_of", "method_of"]


def card_of(
    args: argparse.Namespace,
    model: RetrievalModel,
    timing: Timing,
    *,
    photographs: str | None = None,
    **facts: Any,
) -> ResultCard:
    """The card of one evaluation.

    Args:
        args: of the call.
        model: what was evaluated.
        timing: what it cost.
        photographs: data set whose photographs these are, if that is not the one scored.
        facts: the card's other attributes.
    """
    unstated = "not stated, see the model's card"
    training = args.training_data or (
        unstated if model.is_trained else "ImageNet-1k (backbone), nothing else"
    )
    dataset = photographs or facts["dataset"].removesuffix("+r1m")
    whitening = "none"
    if model.is_whitened:
        learned = args.whitening_data or unstated
        whitening = f"{model.dim} dimensions; learned on: {learned}"
    return ResultCard(
        model=f"{args.model} ({model.fingerprint()[:12]})",
        scales=tuple(args.scales),
        rerank=args.rerank,
        whitening=whitening,
        training_data=training,
        landmark_overlap=landmark_overlap(training, dataset),
        seed=0,
        seconds_per_query=timing.seconds_per_query,
        seconds_per_image=timing.seconds_per_image,
        index_bytes=timing.index_bytes,
        command=_command(args),
        **facts,
    )


def _command(args: argparse.Namespace) -> str:
    """The call that gives this result again, every option spelled out."""
    words = ["spatial-retrieval", "evaluate", args.target, "--model", args.model]
    words += ["--rerank", args.rerank, "--scales", ",".join(f"{s:g}" for s in args.scales)]
    words += ["--size", str(args.size)] if args.size else []
    words += ["--no-query-crop"] if args.no_query_crop else []
    words += ["--distractors"] if args.distractors else []
    words += ["--regions", str(args.regions)] if args.regions else []
    return shlex.join(words)


def method_of(args: argparse.Namespace) -> str:
    """Model and re-ranker, as tables print them."""
    return args.model if args.rerank == "none" else f"{args.model} + {args.rerank}"
