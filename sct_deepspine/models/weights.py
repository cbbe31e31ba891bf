"""Trained networks as files: their model card, their verification, and what runs them.

Weights are tensors in a safetensors file; a model card (JSON) of the same name beside it says what they
are and bears the file's SHA-256, which is checked before a tensor is used. Beside them may stand a
copy of each network as an ONNX graph, ``NAME.NETWORK.onnx``, whose SHA-256 is on the card too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sct_deepspine.errors import WeightsError
from sct_deepspine.models.backends.onnx import onnx_is_installed, read_graph
from sct_deepspine.models.config import NetworkConfig, config_from_dict
from sct_deepspine.models.predictor import Runtime

__all__ = ["FORMAT", "SHIPPED", "TrainedNetwork", "Weights", "graph_path", "load_weights"]

SHIPPED = Path(__file__).parents[1] / "weights" / "whole_spine.safetensors"
"""The weights that come with the package."""

FORMAT = 2
"""Of the model card. Format 1 is read as well: its networks are hourglasses that predict disc maps."""


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """One network of a weights file.

    Parameters
    ----------
    runtime
        Runs it.
    codec
        What its maps mean, as the model card says it; who uses the network reads this.
    pixel_mm
        Pixel size it was trained at.
    """

    runtime: Runtime
    codec: Mapping[str, Any]
    pixel_mm: float


@dataclass(frozen=True, eq=False)
class Weights:
    """The verified content of one weights file.

    Parameters
    ----------
    name, sha256
        Which file.
    networks
        The networks by name.
    card
        The whole model card.
    """

    name: str
    sha256: str
    networks: Mapping[str, TrainedNetwork]
    card: Mapping[str, Any]

    @property
    def identity(self) -> dict[str, str]:
        """Name and SHA-256, for results."""
        return {"name": self.name, "sha256": self.sha256}


def graph_path(weights: Path, network: str) -> Path:
    """Return where the ONNX copy of a network of a weights file is kept."""
    return weights.with_name(f"{weights.stem}.{network}.onnx")


def load_weights(
    path: str | os.PathLike[str] | None = None, *, device: str | None = None, use_onnx: bool | None = None
) -> Weights:
    """Load and verify a weights file.

    Parameters
    ----------
    path
        A ``.safetensors`` file with its model card beside it; by default the shipped one.
    device
        Where torch runs the networks, as torch names it. By default onnxruntime runs them if it is
        installed and the file has ONNX copies, else torch on the CPU.
    use_onnx
        Whether onnxruntime may run the networks; by default, if it is installed.

    Raises
    ------
    WeightsError
        If a file is missing, altered or unreadable, or its networks don't fit their model card.
    DeviceError
        If the device does not exist.
    """
    file = Path(path) if path is not None else SHIPPED
    if file.suffix != ".safetensors":
        raise WeightsError(f"expected a weights file (.safetensors, with its card beside it), got {file}")
    for needed in (file, file.with_suffix(".json")):
        if not needed.is_file():
            raise WeightsError(f"no such weights file: {needed}")
    card = _read_card(file.with_suffix(".json"))
    content = _verified(file, card["sha256"])
    try:
        entries = card["networks"]
        configs = {name: config_from_dict(entry["network"]) for name, entry in entries.items()}
        has_graphs = all("onnx_sha256" in entry for entry in entries.values())
        if use_onnx is None:
            use_onnx = onnx_is_installed()
        if device is None and has_graphs and use_onnx:
            runtimes = _read_graphs(file, card, configs)
        else:
            runtimes = _read_tensors(file, content, configs, device or "cpu")
        networks = {
            name: TrainedNetwork(runtime, entries[name]["codec"], float(entries[name]["pixel_mm"]))
            for name, runtime in runtimes.items()
        }
        return Weights(card["name"], card["sha256"], networks, card)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{file.name} can't be used: {' '.join(str(error).split())[:200]}") from error


def _read_tensors(
    file: Path, content: bytes, configs: dict[str, NetworkConfig], device: str
) -> dict[str, Runtime]:
    try:
        from sct_deepspine.models.backends.torch import read_networks
    except ImportError as error:
        raise WeightsError(
            f"{file.name} needs torch, which is not installed ({error}): pip install 'sct_deepspine[torch]'"
        ) from error
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
        _ = card["name"], card["sha256"], card["networks"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path.name} is not a model card ({type(error).__name__}: {error})") from error
    if form not in (1, FORMAT):
        raise WeightsError(f"{path.name} is a model card of format {form}; this version reads 1 and {FORMAT}")
    return card
