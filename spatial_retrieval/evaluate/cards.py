"""Result cards: a number together with everything that decides whether it compares to another.

A card is written twice, as JSON for programs and as Markdown for people. ``compare`` puts cards
side by side and says where they were measured under different conditions.
"""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spatial_retrieval.evaluate.published import PUBLISHED
from spatial_retrieval.files import atomic_writer, write_json

__all__ = ["ResultCard", "compare", "differences", "environment", "load_card"]

_PACKAGES = ("spatial-retrieval", "numpy", "torch", "torchvision", "timm", "faiss-cpu", "pillow")
_REVISITED = ("roxford5k", "rparis6k")
_HEAD = ("method", "ROxf M", "ROxf H", "RPar M", "RPar H", "source")
# what must agree before two numbers on one data set may be compared
_CONDITIONS = ("protocol", "query_crop", "ignored", "size", "scales", "database_images")


@dataclass(frozen=True, slots=True)
class ResultCard:
    """One evaluation, stated in full.

    Attributes:
        dataset: "roxford5k", or a folder's name.
        protocol: what the scores are of, e.g. "revisited" or "leave-one-out".
        model: name and fingerprint of the model.
        scores: name → value in [0, 1], e.g. "mAP M".
        intervals: name of a score → (low, high), 95 % bootstrap.
        query_crop: whether queries were cropped to their boxes, and at which scale.
        ignored: what happened to images that are neither right nor wrong.
        size: longest side in pixels.
        scales: factors whose descriptors were averaged.
        rerank: the re-ranker, or "none".
        whitening: the whitening, and what it was learned on.
        training_data: what the model was trained on.
        landmark_overlap: landmarks that training data and test set share.
        seed: of everything random in the run.
        queries, database_images: how many.
        seconds_per_query: search and re-ranking, for one described query.
        seconds_per_image: decoding and describing.
        index_bytes: memory of the database's descriptors.
        environment: versions, machine, commit.
        command: what was typed.
    """

    dataset: str
    protocol: str
    model: str
    scores: Mapping[str, float]
    query_crop: str
    ignored: str
    size: int
    scales: Sequence[float]
    rerank: str
    whitening: str
    training_data: str
    landmark_overlap: str
    seed: int
    queries: int
    database_images: int
    seconds_per_query: float
    seconds_per_image: float
    index_bytes: int
    command: str
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=lambda: environment())

    def markdown(self) -> str:
        """The card for people."""
        rows = [f"| {name} | {self._score(name)} |" for name in self.scores]
        facts = [f"| {name} | {_cell(text)} |" for name, text in self._facts()]
        return "\n".join(
            [
                f"# {_cell(self.dataset)}: {_cell(self.model)}",
                "",
                "| score | % (95 % interval) |",
                "|---|---|",
                *rows,
                "",
                "| condition | |",
                "|---|---|",
                *facts,
                "",
                "```",
                self.command,
                "```",
                "",
            ]
        )

    def save(self, path: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write ``path`` with the suffixes .md and .json; returns both paths."""
        stem = Path(path)
        if stem.suffix.lower() in (".md", ".json"):
            stem = stem.with_suffix("")
        page, data = stem.with_name(f"{stem.name}.md"), stem.with_name(f"{stem.name}.json")
        write_json(data, _finite(asdict(self)))
        with atomic_writer(page) as file:
            file.write(self.markdown().encode())
        return page, data

    def _score(self, name: str) -> str:
        value = f"{100 * self.scores[name]:.2f}"
        if name not in self.intervals:
            return value
        low, high = self.intervals[name]
        return f"{value} ({100 * low:.1f} – {100 * high:.1f})"

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("protocol", self.protocol),
            ("query crop", self.query_crop),
            ("ignored images", self.ignored),
            ("longest side", f"{self.size} px"),
            ("scales", ", ".join(f"{s:.4g}" for s in self.scales)),
            ("re-ranking", self.rerank),
            ("whitening", self.whitening),
            ("training data", self.training_data),
            ("shared landmarks", self.landmark_overlap),
            ("queries, database", f"{self.queries}, {self.database_images}"),
            ("time per query", f"{1000 * self.seconds_per_query:.3g} ms (search, re-ranking)"),
            ("time per image", f"{1000 * self.seconds_per_image:.3g} ms (decode, describe)"),
            ("index", f"{self.index_bytes} bytes"),
            ("seed", str(self.seed)),
            *self.environment.items(),
        ]


def load_card(path: str | os.PathLike[str]) -> ResultCard:
    """Read the JSON of a card.

    Raises:
        ValueError: if the file is no card; the message names what is missing or unknown.
    """
    name = os.fspath(path)
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{name}: no readable JSON ({error})") from error
    known = {f.name for f in fields(ResultCard)}
    if not isinstance(value, dict) or set(value) != known:
        odd = known.symmetric_difference(value) if isinstance(value, dict) else known
        raise ValueError(f"{name}: no result card ({', '.join(sorted(odd)[:4])})")
    value["scores"] = {k: float("nan") if v is None else v for k, v in value["scores"].items()}
    value["scales"] = tuple(value["scales"])
    value["intervals"] = {k: tuple(v) for k, v in value["intervals"].items()}
    return ResultCard(**value)


def compare(cards: Sequence[ResultCard], *, published: bool = True) -> str:
    """A Markdown table: one row a card, Medium and Hard mAP in %, then the papers' numbers.

    Cards of other data sets than ROxford and RParis follow in a table of their own, with their
    mAPs and accuracies. Conditions in which cards of one data set differ are said at the end.
    """
    revisited = [card for card in cards if card.dataset in _REVISITED]
    other = [card for card in cards if card.dataset not in _REVISITED]
    parts = []
    if revisited or (published and not other):
        rows = [_row(_name(card), *_columns(card), "measured") for card in revisited]
        if published:
            rows += [_row(p.method, *p.roxford5k, *p.rparis6k, "published") for p in PUBLISHED]
        parts += ["\n".join([_row(*_HEAD), "|---|---|---|---|---|---|", *rows])]
    if other:
        rows = [_row(_name(card), card.dataset, _summary(card)) for card in other]
        parts += ["\n".join(["| method | data set | scores, % |", "|---|---|---|", *rows])]
    return "\n\n".join([*parts, *differences(cards)]) + "\n"


def differences(cards: Sequence[ResultCard]) -> list[str]:
    """One line for each condition in which cards of one data set differ."""
    notes = []
    for dataset in dict.fromkeys(card.dataset for card in cards):
        same = [card for card in cards if card.dataset == dataset]
        for condition in _CONDITIONS:
            values = dict.fromkeys(str(getattr(card, condition)) for card in same)
            if len(values) > 1:
                what = condition.replace("_", " ")
                notes.append(f"Not comparable on {dataset}: {what} is {' | '.join(values)}.")
    return notes


def environment() -> dict[str, str]:
    """Versions, machine and commit of this process."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**found, "machine": f"{platform.system()} {platform.machine()}", "commit": _commit()}


def _commit() -> str:
    """Of the code that runs, "+ changes" if it is not what was committed."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        run = ["git", "-C", str(folder), *arguments]
        return subprocess.run(run, capture_output=True, text=True, check=True, timeout=10).stdout

    try:
        changed = git("status", "--porcelain", "--untracked-files=no").strip()
        return git("rev-parse", "HEAD").strip() + (" + changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown (not a git checkout)"


def _columns(card: ResultCard) -> list[float | str]:
    own: list[float | str] = [100 * card.scores[f"mAP {p}"] for p in "MH"]
    return [*own, "", ""] if card.dataset == _REVISITED[0] else ["", "", *own]


def _summary(card: ResultCard) -> str:
    main = [name for name in card.scores if "mAP" in name or "accuracy" in name]
    return " · ".join(f"{name} {card._score(name)}" for name in main or card.scores)


def _name(card: ResultCard) -> str:
    return card.model if card.rerank == "none" else f"{card.model} + {card.rerank}"


def _row(*cells: float | str) -> str:
    texts = [f"{cell:.1f}" if isinstance(cell, float) else _cell(cell) for cell in cells]
    return f"| {' | '.join(texts)} |"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _finite(value: Any) -> Any:
    """JSON has no NaN: a score that does not exist becomes null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and value != value else value
