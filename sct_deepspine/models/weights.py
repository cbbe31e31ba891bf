"""Trained networks: their cards, their verification, and what runs them.

Weights are tensors in a safetensors file; a card (JSON) of the same name beside it says what they
are and bears the file's SHA-256, which is checked before a tensor is used. Beside them may stand a
copy of each network as an ONNX graph, ``NAME.locate.onnx``, whose SHA-256 is on the card too.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sct_deepspine.errors import WeightsError
from sct_deepspine.labeling.calibration import Calibration
from sct_deepspine.labeling.heatmaps import Codec
from sct_deepspine.labeling.levels import DecodingParameters
from sct_deepspine.models.backends.onnx import onnx_is_installed, read_graph
from sct_deepspine.models.config import NetworkConfig
from sct_deepspine.models.predictor import Artist, Runtime

__all__ = ["FORMAT", "SHIPPED", "Weights", "graph_path", "load_weights"]

SHIPPED = Path(__file__).parents[1] / "weights" / "whole_spine.safetensors"
"""The weights that come with the package."""

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Weights:
    """The trained networks of one weights file.

    Parameters
    ----------
    name, sha256
        Which file.
    locate
        Draws coarse planes of the whole view: where the spine is, which level each disc is.
    refine
        Draws fine planes of the straightened spine: where exactly each disc is. None if the file
        holds no such network; discs then stay where the coarse look put them.
    card
        The whole card.
    """

    name: str
    sha256: str
    locate: Artist
    refine: Artist | None
    card: dict[str, Any]

    @property
    def decoding(self) -> DecodingParameters:
        """Constants of the decoding."""
        return DecodingParameters(**self.card.get("decoding", {}))

    @property
    def calibration(self) -> Calibration:
        """What corrects the decoding's probabilities."""
        return Calibration.from_card(self.card.get("calibration", {}))

    @property
    def least_score(self) -> float:
        """Score, weighed against length, below which a reading is not taken for a spine."""
        return float(self.card.get("least_score", 0.0))

    @property
    def identity(self) -> dict[str, str]:
        """Name and SHA-256, for results."""
        return {"name": self.name, "sha256": self.sha256}


def graph_path(weights: Path, network: str) -> Path:
    """Return where the ONNX copy of a network of a weights file is kept."""
    return weights.with_name(f"{weights.stem}.{network}.onnx")


def load_weights(path: str | os.PathLike[str] | None = None, *, device: str | None = None) -> Weights:
    """Load and verify a weights file; the same file is read only once.

    Parameters
    ----------
    path
        A ``.safetensors`` file with its card beside it; by default the shipped one.
    device
        Where torch runs the networks, as torch names it. By default onnxruntime runs them if it is
        installed and the file has ONNX copies, else torch on the CPU.

    Raises
    ------
    WeightsError
        If a file is missing, altered or unreadable, or its networks don't fit their card.
    DeviceError
        If the device does not exist.
    """
    file = Path(path) if path is not None else SHIPPED
    for needed in (file, file.with_suffix(".json")):
        if not needed.is_file():
            raise WeightsError(f"no such weights file: {needed}")
    return _load(file.resolve(), file.stat().st_mtime_ns, device)


@lru_cache(maxsize=4)
def _load(file: Path, _modified: int, device: str | None) -> Weights:
    card = _read_card(file.with_suffix(".json"))
    try:
        networks = card["networks"]
        configs = {name: NetworkConfig(**entry["network"]) for name, entry in networks.items()}
        has_graphs = all("onnx_sha256" in entry for entry in networks.values())
        if device is None and has_graphs and onnx_is_installed():
            runtimes = _read_graphs(file, card, configs)
        else:
            runtimes = _read_tensors(file, card, configs, device or "cpu")
        artists = {name: _artist(name, networks[name], runtime) for name, runtime in runtimes.items()}
        return Weights(card["name"], card["sha256"], artists["locate"], artists.get("refine"), card)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{file.name} can't be used: {' '.join(str(error).split())[:200]}") from error


def _read_tensors(
    file: Path, card: dict[str, Any], configs: dict[str, NetworkConfig], device: str
) -> dict[str, Runtime]:
    from sct_deepspine.models.backends.torch import read_networks

    content = _verified(file, card["sha256"])
    try:
        return dict(read_networks(content, configs, device=device))
    except WeightsError as error:
        raise WeightsError(f"{file.name} can't be used: {error}") from error


def _read_graphs(file: Path, card: dict[str, Any], configs: dict[str, NetworkConfig]) -> dict[str, Runtime]:
    runtimes: dict[str, Runtime] = {}
    for name, config in configs.items():
        graph = graph_path(file, name)
        if not graph.is_file():
            raise WeightsError(f"no such weights file: {graph}")
        content = _verified(graph, card["networks"][name]["onnx_sha256"])
        try:
            runtimes[name] = read_graph(content, config)
        except WeightsError as error:
            raise WeightsError(f"{graph.name} can't be used: {error}") from error
    return runtimes


def _verified(file: Path, sha256: str) -> bytes:
    """Return a file's content if it is the one that the card describes."""
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise WeightsError(
            f"{file.name} is not the file its card describes (SHA-256 differs); install it again"
        )
    return content


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        form = card["format"]
        _ = card["name"], card["sha256"], card["networks"]["locate"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path.name} is not a card of weights ({type(error).__name__}: {error})"
        ) from error
    if form != FORMAT:
        raise WeightsError(f"{path.name} is a card of format {form}; this version reads format {FORMAT}")
    return card


def _artist(name: str, entry: dict[str, Any], runtime: Runtime) -> Artist:
    config, codec = runtime.config, Codec(**entry["codec"])
    if (config.channels, config.stride) != (codec.channels, codec.stride):
        raise ValueError(
            f"network {name} draws {config.channels} maps at stride {config.stride}, "
            f"its codec reads {codec.channels} at stride {codec.stride}"
        )
    return Artist(runtime, codec, float(entry["pixel_mm"]))
