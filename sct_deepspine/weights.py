"""Trained networks: their cards, their verification, and drawing with them.

Weights are tensors in a safetensors file; a card (JSON) of the same name beside it says what they
are and bears the file's SHA-256, which is checked before a tensor is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors

from sct_deepspine.errors import WeightsError
from sct_deepspine.files import make_folder, write_text, written_whole
from sct_deepspine.heatmaps import Codec, DiscMaps
from sct_deepspine.network import NetworkConfig, StackedHourglass, build_network, usable_device
from sct_deepspine.sequence import DecodingParameters

__all__ = ["SHIPPED", "Artist", "Weights", "load_weights", "save_weights"]

SHIPPED = Path(__file__).parent / "weights" / "whole_spine.safetensors"
"""The weights that come with the package."""

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Artist:
    """A trained network that draws disc maps on planes of one pixel size.

    Parameters
    ----------
    network
        The network, in evaluation mode.
    codec
        Layout of its maps.
    pixel_mm
        Pixel size it was trained at.
    """

    network: StackedHourglass
    codec: Codec
    pixel_mm: float

    def draw(self, planes: Sequence[NDArray[np.float32]]) -> list[DiscMaps]:
        """Draw the maps of planes of one shape, ``(rows, columns)`` each; the last stack's count."""
        batch = _padded(np.stack(planes), self.network.config.multiple)
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            image = torch.from_numpy(batch)[:, None].expand(-1, self.network.config.in_channels, -1, -1)
            raw = self.network(image.to(device, memory_format=torch.channels_last))[-1]
        rows, columns = (-(-n // self.codec.stride) for n in planes[0].shape)
        return [self.codec.split(maps[:, :rows, :columns]) for maps in raw.float().cpu().numpy()]

    def attention(self, plane: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Return the attention map of a plane, cells, or None for a network without attention."""
        layer = getattr(self.network, "attention", None)
        if layer is None:
            return None
        seen: list[torch.Tensor] = []
        hook = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        try:
            self.draw([plane])
        finally:
            hook.remove()
        rows, columns = (-(-n // self.codec.stride) for n in plane.shape)
        return seen[0][0, 0, :rows, :columns].float().cpu().numpy()


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
        """Constants of the decoding, with the temperature that calibrates its probabilities."""
        return DecodingParameters(**self.card.get("decoding", {}))

    @property
    def least_score(self) -> float:
        """Mean score of a disc below which a reading is not taken for a spine."""
        return float(self.card.get("least_score", 0.0))

    @property
    def identity(self) -> dict[str, str]:
        """Name and SHA-256, for results."""
        return {"name": self.name, "sha256": self.sha256}


def load_weights(path: str | os.PathLike[str] | None = None, *, device: str = "cpu") -> Weights:
    """Load and verify a weights file; the same file is read only once.

    Parameters
    ----------
    path
        A ``.safetensors`` file with its card beside it; by default the shipped one.
    device
        Where the networks run, as torch names it.

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
    return _load(file.resolve(), file.stat().st_mtime_ns, str(usable_device(device)))


@lru_cache(maxsize=4)
def _load(file: Path, _modified: int, device: str) -> Weights:
    card = _read_card(file.with_suffix(".json"))
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != card["sha256"]:
        raise WeightsError(
            f"{file.name} is not the file its card describes (SHA-256 differs); install it again"
        )
    try:
        tensors = load_tensors(content)
        artists = {name: _artist(name, entry, tensors, device) for name, entry in card["networks"].items()}
        return Weights(card["name"], sha256, artists["locate"], artists.get("refine"), card)
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{file.name} can't be used: {' '.join(str(error).split())[:200]}") from error


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


def _artist(name: str, entry: dict[str, Any], tensors: dict[str, torch.Tensor], device: str) -> Artist:
    config, codec = NetworkConfig(**entry["network"]), Codec(**entry["codec"])
    if (config.channels, config.stride) != (codec.channels, codec.stride):
        raise ValueError(
            f"network {name} draws {config.channels} maps at stride {config.stride}, "
            f"its codec reads {codec.channels} at stride {codec.stride}"
        )
    network = build_network(config)
    own = {
        key.removeprefix(f"{name}."): value.float()
        for key, value in tensors.items()
        if key.startswith(f"{name}.")
    }
    network.load_state_dict(own | _counters(network))
    network.eval().requires_grad_(False)
    network.to(torch.device(device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Artist(network, codec, float(entry["pixel_mm"]))


def _counters(network: StackedHourglass) -> dict[str, torch.Tensor]:
    """Batch normalisation counts its batches; inference does not need the count, and files omit it."""
    return {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}


def _padded(batch: NDArray[np.float32], multiple: int) -> NDArray[np.float32]:
    """Pad ``(N, rows, columns)`` at the end with the constant that means "outside the image"."""
    missing = [(0, -size % multiple) for size in batch.shape[1:]]
    return np.pad(batch, [(0, 0), *missing])


def save_weights(path: Path, artists: dict[str, Artist], card: dict[str, Any]) -> None:
    """Write networks in half precision, and their card with the file's SHA-256.

    Parameters
    ----------
    path
        The ``.safetensors`` file; its card gets the suffix ``.json``.
    artists
        ``locate`` and, if there is one, ``refine``.
    card
        ``name`` and whatever else is worth telling: training data, licence, metrics, calibration.

    Raises
    ------
    OutputError
        If they can't be written there.
    """
    tensors = {
        f"{name}.{key}": value.detach().cpu().half().contiguous()
        for name, artist in artists.items()
        for key, value in artist.network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    content = dump_tensors(tensors)
    networks = {
        name: {"network": asdict(a.network.config), "codec": asdict(a.codec), "pixel_mm": a.pixel_mm}
        for name, a in artists.items()
    }
    whole = {"format": FORMAT, "sha256": hashlib.sha256(content).hexdigest(), "networks": networks} | card
    make_folder(path.parent)
    with written_whole(path) as partial:
        partial.write_bytes(content)
    write_text(path.with_suffix(".json"), json.dumps(whole, indent=2) + "\n")
