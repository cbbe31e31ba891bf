"""The trained model of the labelling: its networks and its part of the model card."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sct_deepspine.anatomy import DISC_VALUES, LANDMARK_VALUES
from sct_deepspine.errors import WeightsError
from sct_deepspine.labeling.agreement import CHANGES
from sct_deepspine.labeling.calibration import Calibration
from sct_deepspine.labeling.heatmaps import DiscCodec, DiscPredictor
from sct_deepspine.labeling.levels import DecodingParameters
from sct_deepspine.models.predictor import Predictor
from sct_deepspine.models.weights import TrainedNetwork, Weights, load_weights

__all__ = ["LabelingModel"]

OPTIONAL_NETWORKS = "canal", "refine"
"""What a weights file may hold for the labelling beside ``locate``."""


@dataclass(frozen=True, eq=False)
class LabelingModel:
    """What :func:`sct_deepspine.label_discs` needs of a weights file.

    Parameters
    ----------
    locate
        Predicts maps on coarse planes of the whole view: where the spine is, which level each disc is.
    refine
        Predicts maps on fine planes of the straightened spine: where exactly each disc is. None if there
        is no such network; discs then stay where the coarse stage puts them.
    canal
        Predicts maps on very coarse planes all across the volume: about where the canal is. None if there is
        no such network; ``locate`` then finds it, which takes longer.
    parameters
        Constants of the level assignment.
    calibration
        What corrects its probabilities.
    minimum_score
        Score, weighed against length, below which an assignment is not taken for a spine.
    readings
        Names of the changes under which a view is read again
        (:data:`sct_deepspine.labeling.agreement.CHANGES`); none where the calibration was fitted without
        them.
    identity
        ``name`` and ``sha256`` of the weights, for results.
    """

    locate: DiscPredictor
    refine: DiscPredictor | None = None
    canal: DiscPredictor | None = None
    parameters: DecodingParameters = field(default_factory=DecodingParameters)
    calibration: Calibration = field(default_factory=Calibration)
    minimum_score: float = 0.0
    readings: tuple[str, ...] = ()
    identity: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        floor, levels = self.parameters.level_floor, self.locate.codec.levels
        if floor * levels >= 1:
            raise ValueError(f"a level floor of {floor} leaves nothing to tell {levels} levels apart")

    @property
    def landmarks(self) -> tuple[int, ...]:
        """Values that tell the level. Networks that predict no landmark have C2/C3 and L5/S1 instead."""
        predicted = tuple(v for v in LANDMARK_VALUES if v in self.locate.codec.values)
        return predicted or (DISC_VALUES[0], DISC_VALUES[-1])

    @classmethod
    def load(
        cls, weights: Weights | str | os.PathLike[str] | None = None, *, device: str | None = None
    ) -> LabelingModel:
        """Take the networks from weights that are loaded, from a file, or from the shipped file.

        Raises
        ------
        WeightsError
            If a file can't be used, or holds no network of the labelling.
        DeviceError
            If the device does not exist.
        """
        given = weights if isinstance(weights, Weights) else load_weights(weights, device=device)
        if "locate" not in given.networks:
            hint = ": give them with -weights-masks" if "segment" in given.networks else ""
            held = ", ".join(given.networks)
            raise WeightsError(
                f"the weights {given.name} can't be used to label discs: they hold {held}{hint}"
            )
        try:
            # Cards of format 1 keep what is the labelling's at their top, and call the score otherwise.
            card = given.card.get("labeling", given.card)
            others = {
                name: _disc_predictor(given.networks[name])
                for name in OPTIONAL_NETWORKS
                if name in given.networks
            }
            return cls(
                locate=_disc_predictor(given.networks["locate"]),
                **others,
                parameters=DecodingParameters(**card.get("decoding", {})),
                calibration=Calibration.from_card(card.get("calibration", {})),
                minimum_score=float(card.get("minimum_score", card.get("least_score", 0.0))),
                readings=_known_changes(card.get("readings", ())),
                identity=given.identity,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"the weights {given.name} can't be used to label discs: {reason}") from error


def _known_changes(names: Sequence[str]) -> tuple[str, ...]:
    strange = set(names) - set(CHANGES)
    if strange:
        raise ValueError(f"unknown readings {sorted(strange)}; known are {', '.join(CHANGES)}")
    return tuple(names)


def _disc_predictor(network: TrainedNetwork) -> DiscPredictor:
    codec = {name: value for name, value in network.codec.items() if name != "kind"}
    return Predictor(network.runtime, DiscCodec(**codec), network.pixel_mm)
