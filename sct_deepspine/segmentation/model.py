"""The trained model of the masks: its network and its part of the model card."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sct_deepspine.errors import WeightsError
from sct_deepspine.models.predictor import Predictor
from sct_deepspine.models.weights import SHIPPED, Weights, load_weights
from sct_deepspine.segmentation.tissues import TissueCodec, TissuePredictor

__all__ = ["SHIPPED_MASKS", "SegmentationModel"]

SHIPPED_MASKS: Path = SHIPPED.with_name("spine_masks.safetensors")
"""The weights that come with the package."""


@dataclass(frozen=True, eq=False)
class SegmentationModel:
    """What :func:`sct_deepspine.segment_spine` needs of a weights file.

    Parameters
    ----------
    predictor
        Predicts the tissues of a plane.
    measured
        Values of the whole mask that were measured against true masks.
    identity
        ``name`` and ``sha256`` of the weights, for results.
    """

    predictor: TissuePredictor
    measured: frozenset[int] = frozenset()
    identity: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(
        cls, weights: Weights | str | os.PathLike[str] | None = None, *, device: str | None = None
    ) -> SegmentationModel:
        """Take the network from weights that are loaded, from a file, or from the shipped file.

        Raises
        ------
        WeightsError
            If a file can't be used, or holds no network of the masks.
        DeviceError
            If the device does not exist.
        """
        given = (
            weights if isinstance(weights, Weights) else load_weights(weights or SHIPPED_MASKS, device=device)
        )
        try:
            network = given.networks["segment"]
            codec = {name: value for name, value in network.codec.items() if name != "kind"}
            measured = given.card.get("segmentation", {}).get("measured_values", [])
            return cls(
                predictor=Predictor(network.runtime, TissueCodec(**codec), network.pixel_mm),
                measured=frozenset(int(value) for value in measured),
                identity=given.identity,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(
                f"the weights {given.name} can't be used to segment a spine: {reason}"
            ) from error
