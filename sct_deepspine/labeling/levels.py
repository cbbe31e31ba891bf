"""Ordered decoding: from disc candidates to levels, exactly, with probabilities.

A *path* picks candidates in order, superior to inferior, and gives each a disc value. Each step
inferior is one level, or more where discs were missed. A path's score is a sum over its candidates
(how bright, how well the level fits) and its steps (does the distance fit the levels), and one body
factor that stretches all expected distances. The best path and the sums over all paths come from
dynamic programming (Viterbi and forward-backward), so nothing is searched by chance.

Axes: ``j``, ``k`` candidate, ``s`` levels stepped - 1, ``f`` body factor, ``v`` level column,
``r`` restriction of the paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sct_deepspine.anatomy import disc_name
from sct_deepspine.errors import AnchorError, GeometryError, NoDiscsError
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.spacing import SpacingPrior

__all__ = [
    "Candidates",
    "DecodingParameters",
    "LevelAssignment",
    "LevelPath",
    "assign_levels",
    "best_path",
    "path_evidence",
]

SUREST = 0.95
"""Leaving out a stronger candidate costs no more than leaving out one of this score."""

MIN_LEVEL_MM = 15.0
"""Height of the shortest level, mm: an unseen stretch holds no more levels than its length over this."""

_SHIFTS = (-1, 1, -2, 2)
_NOTHING = -1e300  # log of no weight at all, but finite, so that differences with it are numbers


@dataclass(frozen=True)
class DecodingParameters:
    """The constants of the score, all in natural-log units unless stated otherwise.

    Parameters
    ----------
    level_floor
        Least probability of any level at any candidate, so that no map alone can forbid a path.
    level_background
        Amount spread over all levels before a candidate's row is normalised: level values far below it
        say nothing.
    level_weight
        Weight of what the level maps say, against scores and distances.
    score_unit
        Strength that scores 0. With the default floor and 23 levels a candidate above 0.26 scores positive
        even at a level its map denies; were it to cost something, the best path would be one disc long.
    omission_cost
        What it costs to leave a candidate out, times the log-odds of a disc being there.
    skip_cost
        Cost of each level stepped over.
    max_step
        Most levels one step may go down.
    spacing_cap
        Most that one distance may cost, so that a disc is not left out where anatomy is odd.
    temperature
        Divides all scores where probabilities are computed; fitted so that they are calibrated. At least 0.1.

    Raises
    ------
    ValueError
        If a constant is no number, is negative, or is too small to work with.
    """

    level_floor: float = 0.02
    level_background: float = 0.02
    level_weight: float = 1.0
    score_unit: float = 0.12
    omission_cost: float = 0.0
    skip_cost: float = 2.5
    max_step: int = 3
    spacing_cap: float = 8.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        least = {"temperature": 0.1, "max_step": 1, "score_unit": 1e-6}
        for name, value in vars(self).items():
            if not isinstance(value, (int, float)) or not least.get(name, 0) <= value < np.inf:
                raise ValueError(f"expected {name} to be at least {least.get(name, 0):g}, got {value!r}")


@dataclass(frozen=True, eq=False)
class Candidates:
    """Points that may be discs, ordered superior to inferior.

    Parameters
    ----------
    points
        ``(K, 2)`` or ``(K, 3)`` mm, in any frame where distances are true.
    score
        ``(K,)`` peak of the any-disc map, 0 to 1.
    level
        ``(K, L)`` level maps near each candidate, not negative, about 0 to 1; normalised in decoding.
        Columns are values ``first_value`` to ``first_value + L - 1``.
    first_value
        Disc value of the first column.
    unseen_mm
        ``(K,)`` how much of the spine above each candidate is in no view, mm, never decreasing; None if all
        of it is. Levels there are stepped over at no cost.

    Raises
    ------
    GeometryError
        If the shapes disagree, or a number is not finite or is negative where it can't be.
    """

    points: FloatArray
    score: FloatArray
    level: FloatArray
    first_value: int = 3
    unseen_mm: FloatArray | None = None

    def __post_init__(self) -> None:
        for name in ("points", "score", "level"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        shapes = self.points.shape, self.score.shape, self.level.shape
        count = len(self.score) if self.score.ndim == 1 else -1
        if [len(s) for s in shapes] != [2, 1, 2] or {s[0] for s in shapes} != {count}:
            raise GeometryError(f"expected candidates of shapes (K, D), (K,) and (K, L), got {shapes}")
        if not all(np.isfinite(a).all() for a in (self.points, self.score, self.level)):
            raise GeometryError("candidates hold NaN or infinite numbers; leave those candidates out")
        if (self.level < 0).any() or (self.score < 0).any():
            raise GeometryError("scores and level values of candidates can't be negative")


@dataclass(frozen=True, eq=False)
class LevelPath:
    """The best path alone.

    Parameters
    ----------
    indices, values, score
        As of :class:`LevelAssignment`.
    """

    indices: NDArray[np.int_]
    values: NDArray[np.int_]
    score: float


@dataclass(frozen=True, eq=False)
class LevelAssignment:
    """The best path and how sure it is.

    Parameters
    ----------
    indices, values
        ``(N,)`` candidates chosen, superior to inferior, and their disc values.
    probabilities
        ``(N,)`` probability, over all paths, that this candidate is a disc and has this value.
    level_confidence
        Probability of the paths that use at least one chosen candidate and give none another value.
    skipped
        Values stepped over: discs to be filled in by :func:`sct_deepspine.spacing.fill_skipped`.
    score
        Score of the best path, which is its log-odds against a spineless image.
    evidence
        The same for all paths together, at the temperature.
    body_factor
        Size of this body in the best path; 1 is the template's.
    runner_up_shift, runner_up_probability
        The most probable path of the same candidates off by 1 or 2 levels; (0, 0.0) if there is none.
    """

    indices: NDArray[np.int_]
    values: NDArray[np.int_]
    probabilities: FloatArray
    level_confidence: float
    skipped: tuple[int, ...]
    score: float
    evidence: float
    body_factor: float
    runner_up_shift: int
    runner_up_probability: float

    def limited(self, most: float) -> LevelAssignment:
        """Return the same levels, with no higher confidence than this, nor of any disc."""
        confidence = min(self.level_confidence, most)
        return replace(self, level_confidence=confidence, probabilities=self.probabilities.clip(max=most))


@dataclass(frozen=True, eq=False)
class _Lattice:
    """All paths: scores of candidates ``(K, L)``, steps ``(pair, S, F, L)``, sizes ``(F,)``.

    The pair ``(j, k)``, ``j < k``, is at ``k (k - 1) / 2 + j``; the level of a step is its upper one.
    ``reach[k]`` is the first ``j`` from which ``k`` may be stepped to. Readings start at or above
    ``last_start`` and stop at or below ``first_stop``.
    """

    candidate: FloatArray
    step: FloatArray
    body: FloatArray
    reach: NDArray[np.int_]
    last_start: int
    first_stop: int

    def into(self, k: int) -> slice:
        """Return the pairs whose lower candidate is ``k``."""
        return slice(k * (k - 1) // 2 + int(self.reach[k]), k * (k + 1) // 2)


def assign_levels(
    candidates: Candidates,
    *,
    anchors: Mapping[int, int] | None = None,
    prior: SpacingPrior | None = None,
    parameters: DecodingParameters | None = None,
) -> LevelAssignment:
    """Give the candidates their levels: the exact best of all ordered paths, and its probabilities.

    Parameters
    ----------
    candidates
        The candidates, superior to inferior.
    anchors
        Candidate index to the disc value it must have. Where it contradicts the level maps, they are
        taken to be off by as many levels at all candidates nearest to this anchor.
    prior, parameters
        Expected spacing and the constants of the score.

    Raises
    ------
    NoDiscsError
        If there is no candidate.
    AnchorError
        If an anchor names no candidate or no level, or no ordered path holds all of them.
    """
    prior, parameters = prior or SpacingPrior(), parameters or DecodingParameters()
    if not len(candidates.score):
        raise NoDiscsError("no disc candidate was found in the image")
    anchors = _checked_anchors(candidates, anchors)
    if anchors:
        candidates = _moved_to_anchors(candidates, anchors, prior, parameters)
    lattice = _lattice(candidates, anchors, prior, parameters)
    score, indices, columns, body = _best(lattice)
    tempered = _tempered(lattice, parameters.temperature)
    evidence, posterior, shifts = _probabilities(tempered, indices, columns)
    if score == -np.inf or evidence <= _NOTHING:
        named = " and ".join(f"{value} ({disc_name(value)})" for value in anchors.values())
        raise AnchorError(f"no order of the discs holds the anchors {named} together; give fewer of them")
    values = columns + candidates.first_value
    runner_up = max(_SHIFTS, key=lambda shift: shifts[shift])
    return LevelAssignment(
        indices=indices,
        values=values,
        probabilities=posterior[indices, columns],
        level_confidence=shifts[0],
        skipped=tuple(sorted(set(range(int(values[0]), int(values[-1]))) - set(values.tolist()))),
        score=score,
        evidence=evidence,
        body_factor=prior.body_factors[body],
        runner_up_shift=runner_up if shifts[runner_up] > 0 else 0,
        runner_up_probability=shifts[runner_up],
    )


def best_path(
    candidates: Candidates,
    *,
    prior: SpacingPrior | None = None,
    parameters: DecodingParameters | None = None,
) -> LevelPath:
    """Return the best path of :func:`assign_levels` alone, without probabilities: a fifth of the time.

    Parameters
    ----------
    candidates, prior, parameters
        As there; at least one candidate.
    """
    lattice = _lattice(candidates, {}, prior or SpacingPrior(), parameters or DecodingParameters())
    score, indices, columns, _ = _best(lattice)
    return LevelPath(indices, columns + candidates.first_value, score)


def path_evidence(
    candidates: Candidates,
    *,
    anchors: Mapping[int, int] | None = None,
    prior: SpacingPrior | None = None,
    parameters: DecodingParameters | None = None,
) -> float:
    """Return the evidence of :func:`assign_levels` alone: the log of the sum over all paths.

    Parameters
    ----------
    candidates, anchors, prior, parameters
        As there; but level maps stay as they are where an anchor contradicts them.
    """
    prior, parameters = prior or SpacingPrior(), parameters or DecodingParameters()
    lattice = _lattice(candidates, _checked_anchors(candidates, anchors), prior, parameters)
    lattice = _tempered(lattice, parameters.temperature)
    forward = _forward(lattice, lattice.candidate[None])
    return float(_log_sum(forward[:, lattice.first_stop :])[0])


def _checked_anchors(candidates: Candidates, anchors: Mapping[int, int] | None) -> dict[int, int]:
    """Return the anchors in order of candidates."""
    count, levels = candidates.level.shape
    last = candidates.first_value + levels - 1
    for k, value in (anchors or {}).items():
        if not (0 <= k < count and candidates.first_value <= value <= last):
            raise AnchorError(
                f"anchor {k}: {value} does not exist; candidates are 0 to {count - 1}, "
                f"values {candidates.first_value} to {last}"
            )
    return {int(k): int(value) for k, value in sorted((anchors or {}).items())}


def _moved_to_anchors(
    candidates: Candidates, anchors: dict[int, int], prior: SpacingPrior, parameters: DecodingParameters
) -> Candidates:
    """Move the level maps by as much as the anchors contradict them.

    An anchor that differs from what the maps say without it means that they are off by whole levels, and
    not at this disc only: left as they are, they would pull the labels back one disc further on.
    Each candidate follows its nearest anchor.
    """
    lattice = _tempered(_lattice(candidates, {}, prior, parameters), parameters.temperature)
    joint = _forward(lattice, lattice.candidate[None])[0] + _backward(lattice)
    believed = np.logaddexp.reduce(joint, axis=1).argmax(axis=1)
    at = np.array(list(anchors))
    shift = np.array([anchors[k] - candidates.first_value - believed[k] for k in at])
    count, levels = candidates.level.shape
    nearest = np.abs(at - np.arange(count)[:, None]).argmin(axis=1)
    source = np.arange(levels) - shift[nearest][:, None]
    inside = (source >= 0) & (source < levels)
    moved = np.take_along_axis(candidates.level, np.clip(source, 0, levels - 1), axis=1)
    return replace(candidates, level=np.where(inside, moved, 0.0))


def _lattice(
    candidates: Candidates, anchors: dict[int, int], prior: SpacingPrior, parameters: DecodingParameters
) -> _Lattice:
    """Score every candidate at every level and every step between two."""
    scores = _candidate_scores(candidates, parameters)
    count, levels = scores.shape
    reach = np.zeros(count, dtype=int)
    for k, value in anchors.items():
        scores[k, np.arange(levels) != value - candidates.first_value] = -np.inf
        reach[k + 1 :] = k
    return _Lattice(
        candidate=scores,
        step=_step_scores(candidates, prior, parameters),
        body=prior.log_body(),
        reach=reach,
        last_start=min(anchors, default=count - 1),
        first_stop=max(anchors, default=0),
    )


def _tempered(lattice: _Lattice, temperature: float) -> _Lattice:
    """Divide all scores by a temperature, and turn those of steps, most of the work, into weights."""
    step = lattice.step / temperature
    np.exp(step, out=step)
    candidate, body = lattice.candidate / temperature, lattice.body / temperature
    return replace(lattice, candidate=candidate, step=step, body=body)


def _candidate_scores(candidates: Candidates, parameters: DecodingParameters) -> FloatArray:
    levels = candidates.level.shape[1]
    floor = parameters.level_floor
    if levels * floor >= 1:
        raise ValueError(f"a level floor of {floor} leaves nothing to tell {levels} levels apart")
    row = candidates.level + parameters.level_background / levels
    probability = floor + (1 - levels * floor) * row / row.sum(axis=1, keepdims=True)
    taken = np.log(np.maximum(candidates.score, 1e-3) / parameters.score_unit)
    # A cost of leaving a candidate out is a gain of taking it in: the sums differ by a constant.
    taken -= parameters.omission_cost * np.log(1 - np.minimum(candidates.score, SUREST))
    return parameters.level_weight * np.log(levels * probability) + taken[:, None]


def _step_scores(candidates: Candidates, prior: SpacingPrior, parameters: DecodingParameters) -> FloatArray:
    """Score the steps of all pairs of candidates by the upper level, ``(pair, S, F, L)``."""
    lower, upper = np.tril_indices(len(candidates.points), -1)
    distance = np.linalg.norm(candidates.points[lower] - candidates.points[upper], axis=1)
    values = candidates.first_value + np.arange(candidates.level.shape[1])
    depth = prior.depth_mm(values)
    hidden = _hidden_levels(candidates)[lower] - _hidden_levels(candidates)[upper]
    steps = np.arange(1, parameters.max_step + int(hidden.max(initial=0)) + 1)
    # The last levels have nothing below; what stands there is never reached and has only to be a number.
    below = np.minimum(np.arange(len(values)) + steps[:, None], len(values) - 1)
    expected = np.log(np.maximum(depth[below] - depth, 1.0))[:, None, :] + np.log(prior.body_factors)[:, None]
    scores = np.log(np.maximum(distance, 1e-3))[:, None, None, None] - expected
    scores /= prior.spreads(values, steps)[:, None, :]
    np.square(scores, out=scores)
    scores *= -0.5
    np.maximum(scores, -parameters.spacing_cap, out=scores)
    skipped = np.maximum(steps - 1 - hidden[:, None], 0)
    scores -= (parameters.skip_cost * skipped)[:, :, None, None]
    return scores


def _hidden_levels(candidates: Candidates) -> NDArray[np.int_]:
    """Return how many levels the unseen spine above each candidate may hold, ``(K,)``, rounded up."""
    if candidates.unseen_mm is None:
        return np.zeros(len(candidates.score), dtype=int)
    return np.ceil(candidates.unseen_mm / MIN_LEVEL_MM).astype(int)


def _best(lattice: _Lattice) -> tuple[float, NDArray[np.int_], NDArray[np.int_], int]:
    """Return score, candidates, level columns and body factor of the best path (Viterbi)."""
    count, levels = lattice.candidate.shape
    steps, bodies = lattice.step.shape[1:3]
    start = np.broadcast_to(lattice.body[:, None], (bodies, levels))
    best = np.full((count, bodies, levels), -np.inf)
    for k in range(count):
        arriving = start.copy() if k <= lattice.last_start else np.full((bodies, levels), -np.inf)
        if k > lattice.reach[k]:
            leaving = (lattice.step[lattice.into(k)] + best[lattice.reach[k] : k, None]).max(axis=0)
            for s in range(min(steps, levels - 1)):
                np.maximum(arriving[:, s + 1 :], leaving[s, :, : -s - 1], out=arriving[:, s + 1 :])
        best[k] = arriving + lattice.candidate[k]
    stops = best[lattice.first_stop :]
    k, body, column = (int(i) for i in np.unravel_index(np.argmax(stops), stops.shape))
    k += lattice.first_stop
    score = float(best[k, body, column])
    path = [(k, column)]
    while score > -np.inf and (previous := _before(lattice, best, k, body, column)) is not None:
        k, column = previous
        path.append(previous)
    indices, columns = np.array(path[::-1]).T
    return score, indices, columns, body


def _before(lattice: _Lattice, best: FloatArray, k: int, body: int, column: int) -> tuple[int, int] | None:
    """Return the candidate and level column before this one on its best path, None at the start."""
    first = int(lattice.reach[k])
    sources = column - 1 - np.arange(min(lattice.step.shape[1], column))
    if k == first or not len(sources):
        return None
    arriving = (
        best[first:k, body][:, sources]
        + lattice.step[lattice.into(k), np.arange(len(sources)), body, sources]
    )
    j, s = np.unravel_index(np.argmax(arriving), arriving.shape)
    if k <= lattice.last_start and arriving[j, s] <= lattice.body[body]:
        return None
    return first + int(j), int(sources[s])


def _probabilities(
    lattice: _Lattice, indices: NDArray[np.int_], columns: NDArray[np.int_]
) -> tuple[float, FloatArray, dict[int, float]]:
    """Return the evidence, the probability of each level ``(K, L)``, and of shifts of the chosen discs."""
    levels = lattice.candidate.shape[1]
    allowed = np.ones((len(_SHIFTS) + 3, *lattice.candidate.shape), dtype=bool)
    for row, shift in enumerate((None, 0, *_SHIFTS), start=1):
        allowed[row, indices] = False
        if shift is not None:
            inside = (columns + shift >= 0) & (columns + shift < levels)
            allowed[row, indices[inside], (columns + shift)[inside]] = True
    forward = _forward(lattice, np.where(allowed, lattice.candidate, -np.inf))
    totals = _log_sum(forward[:, lattice.first_stop :])
    totals[0] = max(totals[0], _NOTHING)
    shares = np.exp(totals - totals[0])
    posterior = np.exp(forward[0] + _backward(lattice) - totals[0]).sum(axis=1)
    # The other rows hold also the paths of row 1, which use no chosen disc: they say nothing of its level.
    by_shift = {shift: float(max(shares[2 + i] - shares[1], 0.0)) for i, shift in enumerate((0, *_SHIFTS))}
    return float(totals[0]), np.minimum(posterior, 1.0), by_shift


def _forward(lattice: _Lattice, candidate: FloatArray) -> FloatArray:
    """Sum over paths that end at each state, ``(R, K, F, L)`` logs, for restrictions ``(R, K, L)``.

    The lattice's steps are weights here, not logs.
    """
    restrictions, count, levels = candidate.shape
    factor = np.exp(candidate)[:, :, None]
    forward = np.empty((restrictions, count, len(lattice.body), levels))
    weight, scale = np.empty_like(forward), np.zeros((restrictions, 1, 1))  # log weight = forward - scale
    for k in range(count):
        first = int(lattice.reach[k])
        arriving = np.zeros((restrictions, len(lattice.body), levels))
        if k <= lattice.last_start:
            arriving += np.exp(lattice.body[:, None] - scale)
        if k > first:
            leaving = np.einsum("jsfv,rjfv->rsfv", lattice.step[lattice.into(k)], weight[:, first:k])
            for s in range(min(leaving.shape[1], levels - 1)):
                arriving[..., s + 1 :] += leaving[:, s, :, : -s - 1]
        weight[:, k] = arriving * factor[:, k]
        with np.errstate(divide="ignore"):
            forward[:, k] = np.log(weight[:, k]) + scale
        # Kept near 1: sums grow with every disc, and shrink with every anchor that all paths must pass.
        top = weight[:, k].max(axis=(1, 2), keepdims=True)
        anchored = k + 1 < count and lattice.reach[k + 1] == k > first
        if anchored or top.max() > 1e100:
            top[top <= (0 if anchored else 1e100)] = 1.0
            weight[:, k if anchored else first : k + 1] /= top[:, None]
            scale += np.log(top)
    return forward


def _backward(lattice: _Lattice) -> FloatArray:
    """Sum over the rest of all paths below each state, ``(K, F, L)`` logs; steps are weights."""
    count, levels = lattice.candidate.shape
    steps, bodies = lattice.step.shape[1:3]
    backward = np.empty((count, bodies, levels))
    for j in reversed(range(count)):
        lower = j + 1 + np.flatnonzero(lattice.reach[j + 1 :] <= j)
        stop = j >= lattice.first_stop
        onward = backward[lower] + lattice.candidate[lower, None]
        top = np.max(onward, initial=0.0 if stop else _NOTHING)
        total = np.full((bodies, levels), np.exp(-top) if stop else 0.0)
        weight, step = np.exp(onward - top), lattice.step[lower * (lower - 1) // 2 + j]
        for s in range(min(steps, levels - 1)):
            total[:, : -s - 1] += np.einsum("kfv,kfv->fv", step[:, s, :, : -s - 1], weight[..., s + 1 :])
        with np.errstate(divide="ignore"):
            backward[j] = np.log(total) + top
    return backward


def _log_sum(logs: FloatArray) -> FloatArray:
    """Return the log of the sum of exponentials over all axes but the first."""
    top = np.max(logs, axis=(1, 2, 3), initial=_NOTHING)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(logs - top[:, None, None, None]).sum(axis=(1, 2, 3))) + top
