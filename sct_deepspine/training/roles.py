"""The two networks of the labelling, as tasks of the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sct_deepspine.labeling.heatmaps import DiscCodec
from sct_deepspine.training.dataset import PlaneSettings

__all__ = ["ROLES", "DiscTask"]


@dataclass(frozen=True)
class DiscTask:
    """What one of the two networks learns.

    Parameters
    ----------
    planes
        Its training planes.
    codec
        Its maps.
    stacks
        Hourglasses, unless another number is asked for.
    """

    planes: PlaneSettings
    codec: DiscCodec
    stacks: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Return the task in JSON's types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DiscTask:
        """Read what :meth:`as_dict` returned."""
        planes = PlaneSettings(**values["planes"] | {"shape": tuple(values["planes"]["shape"])})
        return cls(planes, DiscCodec(**values["codec"]), int(values["stacks"]))


ROLES = {
    "locate": DiscTask(
        PlaneSettings(tall_share=0.35), DiscCodec(stride=2, first_value=1, levels=26), stacks=2
    ),
    "refine": DiscTask(
        PlaneSettings(shape=(192, 64), pixel_mm=1.0, straight=True, turn_degrees=10.0),
        DiscCodec(stride=2, first_value=1, levels=26, sigma_cells=1.5),
    ),
}
"""``locate``: coarse planes of the whole view; ``refine``: fine planes of the straightened spine."""
