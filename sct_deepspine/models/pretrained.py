"""Starting an MCGU-Net from VGG-16's weights, from a file: nothing is downloaded."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sct_deepspine.errors import WeightsError
from sct_deepspine.models.networks import Network
from sct_deepspine.models.unet import MCGUNet

__all__ = ["start_from_vgg16"]

VGG_LAYERS = 0, 2, 5, 7, 10, 12, 14, 17, 19, 21
"""Of ``features`` in torchvision's VGG-16: its first ten convolutions."""

WIDTH = 64
"""Features of the first stage of VGG-16 (Simonyan and Zisserman 2014)."""


def start_from_vgg16(network: Network, path: Path) -> None:
    """Replace the encoder and the first dense block by the first ten convolutions of VGG-16.

    For other than three channels the weights of the first convolution are summed over the colours and shared
    evenly, which is the same as to show VGG-16 the mean of the channels in all three colours.

    Parameters
    ----------
    network
        An MCGU-Net of width 64.
    path
        Weights as torchvision names them (``features.0.weight`` …), ``.pth`` or ``.safetensors``.

    Raises
    ------
    WeightsError
        If the network is another, or the file can't be read or holds other weights.
    """
    if not isinstance(network, MCGUNet) or network.config.width != WIDTH:
        raise WeightsError(f"VGG-16 fits the encoder of an MCGU-Net of width {WIDTH} only")
    tensors = _read(path)
    stages = [*network.encoder, network.dense[0]]
    convolutions = [layer for stage in stages for layer in stage.children() if isinstance(layer, nn.Conv2d)]
    for index, layer in zip(VGG_LAYERS, convolutions, strict=True):
        weight, bias = (tensors.get(f"features.{index}.{name}") for name in ("weight", "bias"))
        if weight is not None and index == 0 and layer.in_channels != 3 and weight.ndim == 4:
            weight = weight.sum(1, keepdim=True).repeat(1, layer.in_channels, 1, 1) / layer.in_channels
        assert layer.bias is not None
        if (
            weight is None
            or bias is None
            or (weight.shape, bias.shape) != (layer.weight.shape, layer.bias.shape)
        ):
            raise WeightsError(
                f"{path} does not hold VGG-16 as torchvision names it: features.{index} is missing or "
                "of another shape"
            )
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"no such weights file: {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} can't be read as weights of torch ({reason[:120]})") from error
    if not isinstance(tensors, dict):
        raise WeightsError(f"{path} does not hold named weights")
    return {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
