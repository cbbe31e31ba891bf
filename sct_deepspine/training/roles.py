"""The networks of the package, as tasks of the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from torch.utils.data import Dataset

from sct_deepspine.io.annotations import LabelledScan
from sct_deepspine.labeling.heatmaps import DiscCodec
from sct_deepspine.segmentation.tissues import TissueCodec
from sct_deepspine.training.dataset import PlaneSettings, RandomPlanes
from sct_deepspine.training.loop import Batch, Evaluation, Loss
from sct_deepspine.training.loss import disc_map_loss, tissue_loss
from sct_deepspine.training.tissue_planes import RandomTissuePlanes, TissuePlaneSettings
from sct_deepspine.training.validation import Validation
from sct_deepspine.training.validation_masks import MaskValidation

__all__ = ["ROLES", "DiscTask", "Task", "TissueTask", "task_from_dict"]


class Task(Protocol):
    """What one network learns, and from what."""

    @property
    def codec(self) -> DiscCodec | TissueCodec:
        """What its maps mean."""
        ...

    @property
    def pixel_mm(self) -> float:
        """Pixel size it is trained at."""
        ...

    @property
    def in_channels(self) -> int:
        """Images that the network sees at once."""
        ...

    @property
    def loss(self) -> Loss:
        """What training makes small."""
        ...

    def training_set(
        self, scans: Sequence[LabelledScan], *, start: int, length: int, seed: int, batch: int
    ) -> Dataset[Batch]:
        """Return random images of scans, with their targets."""
        ...

    def evaluation(self, scans: Sequence[LabelledScan]) -> Evaluation:
        """Return what judges the network on held-out scans."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Return the task in JSON's types."""
        ...

    def codec_card(self) -> dict[str, Any]:
        """Return the codec's entry of the model card."""
        ...


@dataclass(frozen=True)
class DiscTask:
    """What one of the two networks of the labelling learns.

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
    in_channels: int = field(default=1, init=False)

    @property
    def loss(self) -> Loss:
        """What training makes small."""
        return disc_map_loss

    @property
    def pixel_mm(self) -> float:
        """Pixel size it is trained at."""
        return self.planes.pixel_mm

    def training_set(
        self, scans: Sequence[LabelledScan], *, start: int, length: int, seed: int, batch: int
    ) -> RandomPlanes:
        """Return random planes."""
        return RandomPlanes(
            scans, self.codec, self.planes, start=start, length=length, seed=seed, batch=batch
        )

    def evaluation(self, scans: Sequence[LabelledScan]) -> Validation:
        """Return what judges the network on held-out scans."""
        return Validation(scans, self.codec, self.planes)

    def as_dict(self) -> dict[str, Any]:
        """Return the task in JSON's types."""
        return {"planes": asdict(self.planes), "codec": asdict(self.codec), "stacks": self.stacks}

    def codec_card(self) -> dict[str, Any]:
        """Return the codec's entry of the model card."""
        return {"kind": "discs"} | asdict(self.codec)


@dataclass(frozen=True)
class TissueTask:
    """What the network of the masks learns.

    Parameters
    ----------
    planes
        Its training planes.
    """

    planes: TissuePlaneSettings = field(default_factory=TissuePlaneSettings)
    codec: TissueCodec = field(default_factory=TissueCodec, init=False)

    @property
    def in_channels(self) -> int:
        """Images that the network sees at once."""
        return self.planes.channels

    @property
    def loss(self) -> Loss:
        """What training makes small."""
        return tissue_loss

    @property
    def pixel_mm(self) -> float:
        """Pixel size it is trained at."""
        return self.planes.pixel_mm

    def training_set(
        self, scans: Sequence[LabelledScan], *, start: int, length: int, seed: int, batch: int
    ) -> RandomTissuePlanes:
        """Return random planes."""
        return RandomTissuePlanes(scans, self.planes, start=start, length=length, seed=seed)

    def evaluation(self, scans: Sequence[LabelledScan]) -> MaskValidation:
        """Return what judges the network on held-out scans."""
        return MaskValidation(scans, self.codec, self.planes)

    def as_dict(self) -> dict[str, Any]:
        """Return the task in JSON's types."""
        return {"planes": asdict(self.planes)}

    def codec_card(self) -> dict[str, Any]:
        """Return the codec's entry of the model card."""
        return {"kind": "tissues"} | asdict(self.codec)


ROLES: dict[str, Task] = {
    "canal": DiscTask(
        PlaneSettings(shape=(96, 64), pixel_mm=4.0, lateral_share=0.5, tall_rows=192, tall_share=0.35),
        DiscCodec(stride=2, first_value=1, levels=26),
    ),
    "locate": DiscTask(
        PlaneSettings(tall_share=0.35, dark_bone_share=0.15, between_weight=3.0),
        DiscCodec(stride=2, first_value=1, levels=26),
        stacks=2,
    ),
    "refine": DiscTask(
        PlaneSettings(shape=(192, 64), pixel_mm=1.0, straight=True, turn_degrees=10.0),
        DiscCodec(stride=2, first_value=1, levels=26, sigma_cells=1.5),
    ),
    "segment": TissueTask(),
}
"""``canal``: very coarse planes all across the volume, of which the canal's map is used; ``locate``: coarse
planes of the whole view; ``refine``: fine planes of the straightened spine; ``segment``: planes of the
straightened spine, tissue by tissue."""


def task_from_dict(values: Mapping[str, Any]) -> Task:
    """Read what ``as_dict`` of a task returned."""
    if "codec" not in values:
        given = values.get("planes") or values["sheets"]  # "sheets" in files of earlier versions
        planes = {"channels": 1, "group_power": 0.35} | given  # as before version 0.7.0
        planes.pop("composite_share", None)  # of version 0.6.0, always 0
        return TissueTask(TissuePlaneSettings(**planes | {"shape": tuple(planes["shape"])}))
    planes = PlaneSettings(**values["planes"] | {"shape": tuple(values["planes"]["shape"])})
    return DiscTask(planes, DiscCodec(**values["codec"]), int(values["stacks"]))
