"""label_session(): all series of one person, labelled as one spine.

Each series is read as it is alone. Series that overlap and show the same anatomy are brought together by the
shift between them; what may be discs in all of them becomes one chain along the spine, whose levels add
up, and one exact assignment of levels holds for all. A landmark in one series so levels them all. A series
that can't belong to the others is labelled alone, with a note.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sct_deepspine.errors import GeometryError, ImageError, NoDiscsError
from sct_deepspine.geometry.grid import FloatArray
from sct_deepspine.geometry.volume import Volume
from sct_deepspine.io.images import ImageLike, read_one_volume
from sct_deepspine.labeling.anchors import Anchors
from sct_deepspine.labeling.chain import Member, link_candidates
from sct_deepspine.labeling.checks import read_scan
from sct_deepspine.labeling.grouping import Group, Link, extent_mm, group_series, single
from sct_deepspine.labeling.levels import Candidates, LevelAssignment, assign_levels
from sct_deepspine.labeling.model import LabelingModel
from sct_deepspine.labeling.pipeline import label_discs
from sct_deepspine.labeling.review import CONTRADICTED
from sct_deepspine.labeling.session_notes import (
    SessionNote,
    apart_note,
    group_notes,
    link_notes,
    overruled_note,
)
from sct_deepspine.labeling.spine import SessionDisc, Spine, assign_spine, compare_discs, discs_in_view
from sct_deepspine.labels import DiscLabels
from sct_deepspine.models.weights import Weights

__all__ = ["SeriesReading", "SessionLabels", "label_session", "read_series"]

SURE = 0.9
"""A series that says so much alone is not given other levels by the others: it is then labelled apart."""


@dataclass(frozen=True, eq=False)
class SeriesReading:
    """What a series shows alone.

    Parameters
    ----------
    volume
        The series; of a 4-D one, the mean of its volumes.
    labels
        Its own labels; None if no spine was found.
    candidates
        What may be its discs, world; None if no spine was found.
    error
        Why it has no labels, if so.
    """

    volume: Volume
    labels: DiscLabels | None = None
    candidates: Candidates | None = None
    error: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class SessionLabels:
    """The discs of all images of a session.

    Parameters
    ----------
    images
        The discs of each image, in the order given, on its own grid.
    spine
        The merged spine, superior to inferior: each disc with its place in every image that shows it. Of the
        largest group of images that belong together.
    level_confidence
        Probability that no disc of that group bears a wrong level.
    groups
        Indices of the images that were labelled together, the largest group first.
    notes
        Which images were levelled by which, how far the person moved, what was labelled apart and why.
    """

    images: tuple[DiscLabels, ...]
    spine: tuple[SessionDisc, ...]
    level_confidence: float
    groups: tuple[tuple[int, ...], ...]
    notes: tuple[SessionNote, ...] = ()

    def __repr__(self) -> str:
        return f"SessionLabels({len(self.images)} images, level confidence {self.level_confidence:.2f})"

    def as_dict(self) -> dict[str, Any]:
        """Return the session in JSON's types."""
        return {
            "groups": [list(group) for group in self.groups],
            "level_confidence": round(self.level_confidence, 4),
            "spine": [disc.as_dict() for disc in self.spine],
            "notes": [{"sentence": note.sentence, "images": sorted(note.images)} for note in self.notes],
        }


def label_session(
    images: Sequence[ImageLike],
    *,
    anchors: Mapping[int, Anchors] | None = None,
    names: Sequence[str] | None = None,
    weights: LabelingModel | Weights | str | os.PathLike[str] | None = None,
    device: str | None = None,
    label: Callable[..., DiscLabels] = label_discs,
) -> SessionLabels:
    """Label the discs of several images of one person, as one spine.

    Parameters
    ----------
    images
        Images as :func:`sct_deepspine.label_discs` takes them, in scanner coordinates: of any contrast,
        orientation and resolution, overlapping or not. Of a 4-D image the mean of its volumes is read.
    anchors
        Index of an image → discs of it whose level is known; they hold for all images.
    names
        What notes call the images; by default by their number.
    weights, device
        As in :func:`sct_deepspine.label_discs`; the device counts only where weights are read from a file.
    label
        Labels one image; is called as :func:`sct_deepspine.label_discs` is.

    Returns
    -------
    SessionLabels
        One :class:`sct_deepspine.DiscLabels` for each image. Discs that other images place in its view have
        the flag ``from_session``. An image in which no disc lies has none.

    Raises
    ------
    ImageError
        If there is no image, or one can't be read.
    NoDiscsError
        If no spine is in any of them.
    AnchorError
        If an anchor fits no disc.
    """
    if not images:
        raise ImageError("a session needs at least one image")
    model = weights if isinstance(weights, LabelingModel) else LabelingModel.load(weights, device=device)
    known = dict(anchors or {})
    called = list(names) if names is not None else [f"image {n + 1}" for n in range(len(images))]
    readings = []
    for n, image in enumerate(images):
        try:
            readings.append(read_series(image, model, anchor=known.get(n), label=label))
        except (ImageError, GeometryError) as error:
            raise type(error)(f"{called[n]}: {error}") from error
    if all(reading.labels is None for reading in readings):
        raise NoDiscsError(f"no spine was found in any of the {len(images)} images ({readings[0].error})")
    canals = [reading.labels.canal if reading.labels is not None else None for reading in readings]
    groups, links = group_series([reading.volume for reading in readings], canals)
    return _labelled(list(images), readings, groups, links, set(known), model, called)


def read_series(
    image: ImageLike,
    model: LabelingModel,
    *,
    anchor: Anchors | None = None,
    label: Callable[..., DiscLabels] = label_discs,
) -> SeriesReading:
    """Label a series alone, and keep what its levels were chosen from."""
    volume = read_scan(read_one_volume(image))
    seen: list[Candidates] = []

    def assign(candidates: Candidates, **options: Any) -> LevelAssignment:
        seen.append(candidates)
        return assign_levels(candidates, **options)

    try:
        labels = label(volume, weights=model, anchor=anchor, assign=assign)
    except NoDiscsError as error:
        if anchor is not None:
            raise
        return SeriesReading(volume, error=str(error))
    # The first are those of the image as it is; where vertebrae are counted, others follow.
    return SeriesReading(volume, labels, seen[0] if seen else None)


def _labelled(
    images: list[ImageLike],
    readings: Sequence[SeriesReading],
    groups: Sequence[Group],
    links: Sequence[Link],
    anchored: set[int],
    model: LabelingModel,
    names: Sequence[str],
) -> SessionLabels:
    """Label each group as one spine; what contradicts its group is labelled apart."""
    notes = link_notes(links, names)
    spines: list[tuple[Group, Spine | None]] = []
    waiting, doubted = list(groups), set[int]()
    while waiting:
        group = waiting.pop(0)
        spine = _spine(readings, group, anchored, model)
        apart = [] if spine is None else _contradicted(readings, group, spine)
        if spine is not None and apart and anchored & set(group.members):  # a person overrules them
            notes += [overruled_note(n, names, readings[n].labels) for n in apart]
            spine = replace(spine, level_confidence=min(spine.level_confidence, CONTRADICTED))
            doubted |= set(group.members)
            apart = []
        if not apart:
            spines.append((group, spine))
            continue
        notes += [apart_note(n, names) for n in apart]
        doubted |= set(apart)
        waiting += [single(n) for n in apart]
        waiting.append(replace(group, members=tuple(n for n in group.members if n not in apart)))
    spines.sort(key=lambda pair: (-len(pair[0].members), pair[0].members))
    out: dict[int, DiscLabels] = {}
    for group, spine in spines:
        notes += group_notes(group, spine, names)
        for n in group.members:
            alone = readings[n].labels
            if spine is None or (len(group.members) == 1 and alone is not None):
                labels = alone
                if labels is None:
                    labels = DiscLabels((), readings[n].volume.grid, 0.0, weights=model.identity)
            else:
                labels = discs_in_view(spine, n, readings[n].volume, alone, model)
            if n in doubted:
                labels = labels.limited(CONTRADICTED)
            own = tuple(note.sentence for note in notes if n in note.images)
            out[n] = replace(labels.with_source(images[n]), warnings=(*labels.warnings, *own))
    whole = next((spine for _, spine in spines if spine is not None), None)
    return SessionLabels(
        images=tuple(out[n] for n in range(len(images))),
        spine=whole.discs if whole is not None else (),
        level_confidence=whole.level_confidence if whole is not None else 0.0,
        groups=tuple(group.members for group, _ in spines),
        notes=tuple(notes),
    )


def _spine(
    readings: Sequence[SeriesReading], group: Group, anchored: set[int], model: LabelingModel
) -> Spine | None:
    """Return the merged spine of a group; None if no series of it shows discs."""
    members = [
        _member(readings[n], group.shift_mm[n]) if n in group.members else None for n in range(len(readings))
    ]
    order = sorted(group.members, key=lambda n: _trust(readings[n], n in anchored), reverse=True)
    chain = link_candidates(members, order)
    if not len(chain.candidates.score):
        return None
    return assign_spine(chain, readings, group, anchored, model)


def _member(reading: SeriesReading, shift_mm: FloatArray) -> Member | None:
    if reading.candidates is None:
        return None
    moved = replace(reading.candidates, points=reading.candidates.points + shift_mm)
    low, high = extent_mm(reading.volume)
    return Member(moved, (low + float(shift_mm[2]), high + float(shift_mm[2])))


def _trust(reading: SeriesReading, is_anchored: bool) -> tuple[bool, float, float]:
    """Order series: anchored ones first, then by their own confidence, then by resolution along the spine."""
    if reading.labels is None:
        return is_anchored, 0.0, 0.0
    coarseness = float(reading.volume.grid.spacing_mm.max())
    return is_anchored, round(reading.labels.level_confidence, 1), -coarseness


def _contradicted(readings: Sequence[SeriesReading], group: Group, spine: Spine) -> list[int]:
    """Return the series that are sure of other levels alone than the spine has."""
    out: list[int] = []
    if len(group.members) == 1:
        return out
    for n in group.members:
        labels = readings[n].labels
        if labels is None or labels.level_confidence < SURE:
            continue
        if not all(compare_discs(labels, n, spine.discs)):
            out.append(n)
    return out
