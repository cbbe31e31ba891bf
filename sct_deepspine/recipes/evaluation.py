"""Scoring a trained network on a folder, and the tables of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

from sct_deepspine.io.files import plain_cell
from sct_deepspine.recipes.figures import MaskCase
from sct_deepspine.recipes.folders import ImagePair, read_sample
from sct_deepspine.recipes.prediction import MaskModel
from sct_deepspine.recipes.scores import MEASURES, CaseScore, ScoreSummary, measures, score_case

__all__ = ["report", "score_pairs", "scores_csv"]


def score_pairs(
    model: MaskModel, cases: Sequence[ImagePair], *, stride: int | None = None
) -> Iterator[tuple[list[CaseScore], MaskCase]]:
    """Predict and score images one by one.

    Yields
    ------
    scores, case
        One score for each class but the background, and what a picture of it needs. Its F1 is the mean over
        the classes for which it is defined.

    Raises
    ------
    DeepSpineError
        If an image can't be read, or does not fit the network.
    """
    codec = model.task.codec
    for case in cases:
        sample = read_sample(case)
        probabilities = model.probabilities(sample.image, stride=stride)
        scores = score_case(sample, probabilities, codec)
        f1 = [float(measures(score.counts)["f1"]) for score in scores]
        defined = [value for value in f1 if value == value]
        mean = sum(defined) / len(defined) if defined else float("nan")
        yield scores, MaskCase.of(sample, probabilities, codec, mean)


def report(summaries: Sequence[ScoreSummary]) -> str:
    """Return the scores as a table: pooled over pixels, and averaged over images with 95 % intervals."""
    lines = []
    for summary in summaries:
        images = f"{summary.images} images of {summary.subjects} subjects"
        lines += [f"class {summary.value}, {images}", f"{'':12}  {'pooled':24}{'mean over images':24}"]
        for name in MEASURES:
            pooled = _cell(summary.pooled[name], summary.pooled_interval.get(name))
            each = _cell(summary.per_image[name], summary.per_image_interval[name])
            lines.append(f"{name:12}  {pooled:24}{each:24}".rstrip())
        lines.append("")
    return "\n".join(lines).rstrip()


def _cell(value: float, interval: tuple[float, float] | None) -> str:
    if interval is None or interval[0] != interval[0]:
        return f"{value:.4f}"
    return f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"


def scores_csv(scores: Sequence[CaseScore]) -> str:
    """Return one line per image and class; a measure that is not defined is left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "subject", "class", *MEASURES])
    for score in scores:
        found: Mapping[str, float] = score.measures
        row = [plain_cell(score.name), plain_cell(score.subject), score.value]
        row += [f"{found[n]:.6f}" if found[n] == found[n] else "" for n in MEASURES]
        writer.writerow(row)
    return text.getvalue()
