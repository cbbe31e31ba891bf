"""From a configuration to a torch network, and the device it runs on."""

from __future__ import annotations

import torch

from sct_deepspine.errors import DeviceError
from sct_deepspine.models.config import (
    BCDUNetConfig,
    HourglassConfig,
    MCGUNetConfig,
    NetworkConfig,
)
from sct_deepspine.models.hourglass import AttentionHourglass, StackedHourglass
from sct_deepspine.models.unet import BCDUNet, MCGUNet, UNet

__all__ = ["Network", "build_network", "usable_device"]

Network = StackedHourglass | UNet | BCDUNet
"""Any network: it has a ``config`` and maps images to a list of raw maps, one entry per stage."""


def build_network(config: NetworkConfig) -> Network:
    """Build the network that a configuration describes, with random weights."""
    if isinstance(config, HourglassConfig):
        return AttentionHourglass(config) if config.attention else StackedHourglass(config)
    if isinstance(config, MCGUNetConfig):
        return MCGUNet(config)
    return BCDUNet(config) if isinstance(config, BCDUNetConfig) else UNet(config)


def usable_device(name: str) -> torch.device:
    """Return a device on which tensors can be made.

    Raises
    ------
    DeviceError
        If there is no such device on this machine.
    """
    try:
        device = torch.empty(0, device=name).device
        if device.type == "meta":
            raise RuntimeError("it holds no values")
        return device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"the device {name} can't be used ({reason}); cpu always can") from error
