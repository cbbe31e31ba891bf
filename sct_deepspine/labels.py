"""Discs, notes, and the labels of one image."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sct_deepspine._version import __version__
from sct_deepspine.anatomy import (
    DISC_VALUES,
    FIRST_VALUE,
    PRESACRAL,
    disc_name,
    last_template_value,
)
from sct_deepspine.errors import DeepSpineError
from sct_deepspine.geometry.centerline import Centerline
from sct_deepspine.geometry.grid import FloatArray, Grid
from sct_deepspine.io.images import ImageLike, image_like, save_like
from sct_deepspine.spacing import extrapolate_superior

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from sct_deepspine.labeling.heatmaps import PlanePrediction

__all__ = [
    "NOTE_KINDS",
    "UNCERTAIN",
    "Disc",
    "DiscLabels",
    "Note",
    "NoteKind",
    "VertebraCount",
    "import_pandas",
]

UNCERTAIN = 0.5
"""Below this confidence levels are more likely wrong than right."""

NoteKind = Literal[
    "implant",
    "fused",
    "step",
    "repeat",
    "mosaic",
    "voxel size",
    "canal leaves the image",
    "mask",
    "transitional sacrum",
    "lowest disc",
    "vertebra count",
]
NOTE_KINDS: tuple[NoteKind, ...] = get_args(NoteKind)
"""What a note may be about."""


def import_pandas() -> Any:
    """Return pandas.

    Raises
    ------
    DeepSpineError
        If it is not installed.
    """
    try:
        return import_module("pandas")
    except ImportError as error:
        raise DeepSpineError("a table needs pandas, which is not installed: pip install pandas") from error


@dataclass(frozen=True, eq=False, repr=False)
class Disc:
    """One disc.

    Parameters
    ----------
    value
        SCT's disc value.
    point_world
        ``(3,)`` posterior tip, world mm.
    confidence
        Probability that a disc is here and bears this value.
    interpolated
        True if the disc was placed between (or beyond) its neighbours, or if nothing is seen of it where its
        point is: in a void of signal, or in fused bone.
    from_session
        True if it was not seen in this image but placed where other images of the session show it.
    presacral
        Vertebrae that this spine has above the sacrum, as far as is known: they tell the disc's name.
    """

    value: int
    point_world: FloatArray
    confidence: float
    interpolated: bool = False
    from_session: bool = False
    presacral: int = PRESACRAL

    def __repr__(self) -> str:
        place = ", ".join(f"{c:.1f}" for c in self.point_world)
        marks = [name for name in ("interpolated", "from_session") if getattr(self, name)]
        words = [f"{self.value} {self.name}", f"({place}) mm", f"{self.confidence:.2f}", *marks]
        return f"Disc({', '.join(words)})"

    @property
    def name(self) -> str:
        """Anatomical name, such as ``"C2/C3"``."""
        return disc_name(self.value, self.presacral)


@dataclass(frozen=True, eq=False)
class Note:
    """Something odd in an image, and where.

    Parameters
    ----------
    kind
        What it is: ``"implant"``, ``"fused"``, ``"step"``, ``"repeat"``, ``"mosaic"``, ``"voxel size"``,
        ``"canal leaves the image"``, ``"mask"``, ``"transitional sacrum"``, ``"lowest disc"`` or
        ``"vertebra count"``.
    sentence
        What a person should know and do.
    values
        Disc values that it is about.
    point_world
        ``(3,)`` world mm where to look, None where it is about the whole image.
    """

    kind: NoteKind
    sentence: str
    values: tuple[int, ...] = ()
    point_world: FloatArray | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        place = None if self.point_world is None else [round(float(c), 1) for c in self.point_world]
        return {
            "kind": self.kind,
            "sentence": self.sentence,
            "values": list(self.values),
            "world_mm": place,
        }


@dataclass(frozen=True)
class VertebraCount:
    """How many vertebrae lie above the sacrum.

    Parameters
    ----------
    presacral
        23, 24 or 25.
    probability
        Of this number, of the three.
    """

    presacral: int
    probability: float

    @property
    def is_usual(self) -> bool:
        """Whether there are 24."""
        return self.presacral == PRESACRAL

    @property
    def finding(self) -> str:
        """What a person should know of a number that is not usual."""
        extra = "a sixth lumbar or a thirteenth thoracic one, or a first sacral one that looks lumbar"
        lacking = "only four lumbar or eleven thoracic ones, or a fifth lumbar one that looks sacral"
        what = extra if self.presacral > PRESACRAL else lacking
        return (
            f"{self.presacral} presacral vertebrae (probability {self.probability:.2f}): {what}; the values "
            "are counted from C2, and names below T12 follow that count: check it before naming lumbar levels"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        return {"number": self.presacral, "probability": round(self.probability, 4)}


@dataclass(frozen=True, eq=False, repr=False)
class DiscLabels:
    """The discs of one image: a collection of them, with what is known of them together.

    ``len(labels)`` counts them, iterating yields them from superior to inferior, ``labels[8]`` is the disc of
    the value 8 (C7/T1), and ``8 in labels`` tells whether there is one.

    Parameters
    ----------
    discs
        From superior to inferior. Values have a gap where a person removed a disc.
    grid
        Grid of the image they were found in.
    level_confidence
        Probability that no disc bears a wrong level.
    weights
        ``name`` and ``sha256`` of the weights used.
    warnings
        Sentences a person should read: odd spacing, uncertain level.
    source
        The image that came in; labels go back to its kind.
    landmarks
        What was seen that is no disc but tells the level: tip (1) and base (2) of the dens, S1/S2 (26).
    view
        ``landmark`` where one of these is in view, ``thoracic`` in the thoracic spine, else ``no_landmark``;
        ``corrected`` for labels that a person set.
    canal
        The line along the canal that was found or given, None for labels from elsewhere.
    prediction
        What the coarse network saw and predicted, if it was asked for.
    notes
        What is odd in the image, each with its place; their sentences are among the warnings.
    evidence
        What the confidence rests on, 0 to 1 each: ``marginal`` of the decoding, how far ``levels`` and
        ``places`` of changed readings agree, and more; see :class:`sct_deepspine.labeling.evidence.Evidence`.
    count
        How many vertebrae lie above the sacrum; None where the dens or S1/S2 is not seen, and for labels of a
        person in a usual spine.
    """

    discs: tuple[Disc, ...]
    grid: Grid
    level_confidence: float
    weights: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    warnings: tuple[str, ...] = ()
    source: ImageLike | None = None
    landmarks: tuple[Disc, ...] = ()
    view: str = "no_landmark"
    canal: Centerline | None = None
    prediction: PlanePrediction | None = None
    notes: tuple[Note, ...] = ()
    evidence: Mapping[str, float] = field(default_factory=dict)
    count: VertebraCount | None = None

    def __repr__(self) -> str:
        span = f"{self.discs[0].name} to {self.discs[-1].name}, " if self.discs else ""
        return f"DiscLabels({len(self)} discs, {span}level confidence {self.level_confidence:.2f})"

    def __len__(self) -> int:
        return len(self.discs)

    def __iter__(self) -> Iterator[Disc]:
        return iter(self.discs)

    def __contains__(self, value: object) -> bool:
        return any(disc.value == value for disc in self.discs)

    def __getitem__(self, value: int) -> Disc:
        for disc in self.discs:
            if disc.value == value:
                return disc
        there = ", ".join(str(disc.value) for disc in self.discs) or "none"
        raise KeyError(f"no disc of the value {value}; there are {there}")

    def _repr_html_(self) -> str:
        """Return a picture and a table, as notebooks show them."""
        return str(import_module("sct_deepspine.reporting.notebook").labels_html(self))

    def plot(self) -> Figure:
        """Return a Matplotlib figure of the discs on the plane along the canal.

        Raises
        ------
        DeepSpineError
            If the image that they are of can't be read again, or its canal is not known.
        """
        return import_module("sct_deepspine.reporting.notebook").labels_figure(self)

    def to_dataframe(self) -> DataFrame:
        """Return a pandas table with the columns of :meth:`to_csv`.

        Raises
        ------
        DeepSpineError
            If pandas is not installed.
        """
        return import_pandas().read_csv(io.StringIO(self.to_csv()))

    @property
    def presacral(self) -> int:
        """Vertebrae above the sacrum; 24 where they were not counted."""
        return self.count.presacral if self.count is not None else PRESACRAL

    @property
    def values(self) -> NDArray[np.int64]:
        """Disc values, ``(K,)``."""
        return np.array([disc.value for disc in self.discs], dtype=np.int64)

    @property
    def points_world(self) -> FloatArray:
        """Posterior tips, ``(K, 3)`` world mm."""
        return np.array([disc.point_world for disc in self.discs], dtype=np.float64).reshape(-1, 3)

    @property
    def points_voxel(self) -> FloatArray:
        """Posterior tips, ``(K, 3)`` continuous voxel indices of the image."""
        return self.grid.voxel_from_world(self.points_world)

    @property
    def confidence(self) -> FloatArray:
        """Confidence of each disc, ``(K,)``."""
        return np.array([disc.confidence for disc in self.discs])

    @property
    def interpolated(self) -> NDArray[np.bool_]:
        """Which discs were placed between their neighbours, ``(K,)``."""
        return np.array([disc.interpolated for disc in self.discs], dtype=bool)

    def with_source(self, source: ImageLike | None) -> DiscLabels:
        """Return the same labels as those of another image on the same grid, such as a file's path."""
        return replace(self, source=source)

    def limited(self, most: float) -> DiscLabels:
        """Return the same labels with no higher confidence than this, nor of any disc or landmark."""
        discs, landmarks = (
            tuple(replace(disc, confidence=min(disc.confidence, most)) for disc in some)
            for some in (self.discs, self.landmarks)
        )
        confidence = min(self.level_confidence, most)
        return replace(self, discs=discs, landmarks=landmarks, level_confidence=confidence)

    def with_upper_discs(self) -> DiscLabels:
        """Return the labels with C1/C2 (2) and the top of C1 (1) added where they lie in the image.

        Where the dens was seen, they are at its base and its tip. Otherwise they are placed by the
        template's proportions and flagged ``interpolated``; their confidence is then that of C2/C3. Labels
        without C2/C3, or with one disc only, come back as they are.
        """
        first = self.discs[0].value if self.discs else DISC_VALUES[0]
        seen = tuple(mark for mark in self.landmarks if mark.value < min(first, DISC_VALUES[0]))
        discs = (*seen, *self.discs)
        whole = replace(self, discs=discs)
        if len(discs) < 2 or not FIRST_VALUE < discs[0].value <= DISC_VALUES[0]:
            return whole if self.discs and self.discs[0].value == DISC_VALUES[0] else self
        values, points, flags = extrapolate_superior(whole.points_world, whole.values, first=FIRST_VALUE)
        inside = self.grid.contains_voxel(self.grid.voxel_from_world(points))
        added = [
            Disc(int(value), point, discs[0].confidence, interpolated=True, presacral=self.presacral)
            for value, point, flag, is_inside in zip(values, points, flags, inside, strict=True)
            if flag and is_inside
        ]
        return replace(self, discs=(*added, *discs))

    def with_tips(self, points_world: Mapping[int, ArrayLike]) -> DiscLabels:
        """Return the labels with discs, by value, where a person says they are; new ones are added."""
        given = {
            value: Disc(value, np.asarray(point, dtype=np.float64), 1.0, presacral=self.presacral)
            for value, point in points_world.items()
        }
        discs = {disc.value: disc for disc in self.discs} | given
        return replace(self, discs=tuple(discs[value] for value in sorted(discs)))

    def without(self, values: Iterable[int]) -> DiscLabels:
        """Return the labels without some discs, by value."""
        dropped = set(values)
        return replace(self, discs=tuple(disc for disc in self.discs if disc.value not in dropped))

    def shifted(self, levels: int) -> DiscLabels:
        """Return the labels with all values shifted, without landmarks, count and what is no value then."""
        if not levels:
            return self
        discs = [
            replace(disc, value=disc.value + levels, presacral=PRESACRAL)
            for disc in self.discs
            if FIRST_VALUE <= disc.value + levels <= DISC_VALUES[-1]
        ]
        return replace(self, discs=tuple(discs), landmarks=(), count=None)

    def for_template(self) -> DiscLabels:
        """Return the labels that SCT's registration can take: the longest run without a gap.

        Values 1 to 21, or to 19 in a spine with an extra or a missing vertebra.
        """
        runs: list[list[Disc]] = [[]]
        for disc in self.discs:
            if disc.value > last_template_value(self.presacral):
                break
            if runs[-1] and disc.value != runs[-1][-1].value + 1:
                runs.append([])
            runs[-1].append(disc)
        return replace(self, discs=tuple(runs[int(np.argmax([len(run) for run in runs]))]))

    def to_array(self) -> NDArray[np.uint8]:
        """Return the label array: one voxel per disc, its value, 0 elsewhere.

        Raises
        ------
        DeepSpineError
            If two discs fall on one voxel: the image is too coarse to hold them apart.
        """
        labels = np.zeros(self.grid.shape, dtype=np.uint8)
        voxels = np.round(self.points_voxel).astype(int)
        upper = np.array(self.grid.shape) - 1
        for disc, index in zip(self.discs, np.clip(voxels, 0, upper), strict=True):
            if labels[tuple(index)]:
                raise DeepSpineError(
                    f"{disc.name} and another disc fall on one voxel; resample the image finer"
                )
            labels[tuple(index)] = disc.value
        return labels

    def to_image(self) -> ImageLike:
        """Return a label image of the kind that came in, in its grid and orientation.

        An SCT ``Image`` for an SCT ``Image``, a nibabel image for a path or a nibabel image,
        ``(array, affine)`` for ``(array, affine)``.
        """
        return image_like(self.source, self.to_array(), self.grid)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the label image, whole or not at all.

        Raises
        ------
        OutputError
            If it can't be written there.
        """
        save_like(self.source, self.to_array(), self.grid, path)

    def as_dict(self) -> dict[str, Any]:
        """Return all but the voxels, in JSON's types."""
        return {
            "image": os.fspath(self.source) if isinstance(self.source, (str, os.PathLike)) else None,
            "discs": self._rows(self.discs),
            "landmarks": self._rows(self.landmarks),
            "view": self.view,
            "level_confidence": round(self.level_confidence, 4),
            "presacral_vertebrae": self.count.as_dict() if self.count is not None else None,
            "warnings": list(self.warnings),
            "notes": [note.as_dict() for note in self.notes],
            "evidence": dict(self.evidence),
            "weights": dict(self.weights),
            "version": __version__,
        }

    def _rows(self, discs: tuple[Disc, ...]) -> list[dict[str, Any]]:
        points = np.array([disc.point_world for disc in discs], dtype=np.float64).reshape(-1, 3)
        return [
            {
                "value": disc.value,
                "name": disc.name,
                "world_mm": [round(float(c), 4) for c in disc.point_world],
                "voxel": [round(float(c), 4) for c in voxel],
                "confidence": round(disc.confidence, 4),
                "interpolated": disc.interpolated,
                **({"from_session": True} if disc.from_session else {}),
            }
            for disc, voxel in zip(discs, self.grid.voxel_from_world(points), strict=True)
        ]

    def to_json(self, **extra: Any) -> str:
        """Return :meth:`as_dict` and further entries as JSON text."""
        return json.dumps(self.as_dict() | extra, indent=2, ensure_ascii=False) + "\n"

    def to_csv(self) -> str:
        """Return one line per disc: value, name, world mm, voxel, confidence, interpolated."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            ["value", "name", "x_mm", "y_mm", "z_mm", "i", "j", "k", "confidence", "interpolated"]
        )
        for row in self.as_dict()["discs"]:
            place = [*row["world_mm"], *row["voxel"]]
            writer.writerow([row["value"], row["name"], *place, row["confidence"], int(row["interpolated"])])
        return text.getvalue()
