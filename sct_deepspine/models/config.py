"""What defines a network, apart from its weights. Imports nothing that runs one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "KINDS",
    "PAPER",
    "BCDUNetConfig",
    "HourglassConfig",
    "MCGUNetConfig",
    "NetworkConfig",
    "UNetConfig",
    "config_as_dict",
    "config_from_dict",
]


def _check_counts(config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")


@dataclass(frozen=True)
class HourglassConfig:
    """Everything that defines a stacked hourglass.

    Parameters
    ----------
    channels
        Maps predicted.
    in_channels
        Grey images taken.
    stacks
        Hourglasses one after the other.
    blocks
        Residual blocks at each position of an hourglass.
    width
        Features.
    depth
        Times an hourglass halves its input.
    stride
        Pixels per cell of a map: 2 or 4.
    attention
        Whether the multi-level attention gates the last stack.
    """

    channels: int
    in_channels: int = 1
    stacks: int = 2
    blocks: int = 1
    width: int = 80
    depth: int = 4
    stride: int = 2
    attention: bool = True

    def __post_init__(self) -> None:
        _check_counts(self, "channels", "in_channels", "stacks", "blocks", "width", "depth")
        if self.stride not in (2, 4):
            raise ValueError(f"stride must be 2 or 4, got {self.stride}")
        if self.width % 4:
            raise ValueError(f"width must be a multiple of 4, got {self.width}")

    @property
    def multiple(self) -> int:
        """Rows and columns of an input must be multiples of this."""
        return self.stride * 2**self.depth


PAPER = HourglassConfig(channels=11, in_channels=3, width=256, stride=4)
"""The configuration of Azad et al. 2021: 6,795,086 parameters (6,727,062 without attention)."""


@dataclass(frozen=True)
class UNetConfig:
    """Everything that defines a U-Net.

    Parameters
    ----------
    channels
        Maps predicted.
    in_channels
        Grey images taken.
    width
        Features at full resolution; 64 as published.
    """

    channels: int
    in_channels: int = 1
    width: int = 64

    def __post_init__(self) -> None:
        _check_counts(self, "channels", "in_channels", "width")

    @property
    def multiple(self) -> int:
        """Rows and columns of an input must be multiples of this."""
        return 8

    @property
    def stride(self) -> int:
        """Pixels per cell of a map."""
        return 1


@dataclass(frozen=True)
class BCDUNetConfig(UNetConfig):
    """Everything that defines a BCDU-Net.

    Parameters
    ----------
    dense
        Densely connected blocks at the bottom.
    directions
        Of the convolutional LSTMs: 2 as in the paper, 1 as in its code.
    """

    dense: int = 3
    directions: int = 2

    def __post_init__(self) -> None:
        _check_counts(self, "channels", "in_channels", "width", "dense")
        if self.width % 2:
            raise ValueError(f"width must be even, got {self.width}")
        if self.directions not in (1, 2):
            raise ValueError(f"directions must be 1 or 2, got {self.directions}")


@dataclass(frozen=True)
class MCGUNetConfig(BCDUNetConfig):
    """Everything that defines an MCGU-Net; as :class:`BCDUNetConfig`."""


NetworkConfig = HourglassConfig | UNetConfig

KINDS: dict[str, type[NetworkConfig]] = {
    "hourglass": HourglassConfig,
    "unet": UNetConfig,
    "bcdunet": BCDUNetConfig,
    "mcgunet": MCGUNetConfig,
}
"""Name of each kind of network in files and on the command line."""


def config_as_dict(config: NetworkConfig) -> dict[str, Any]:
    """Return a configuration in JSON's types, with its kind."""
    kind = next(name for name, cls in KINDS.items() if type(config) is cls)
    return {"kind": kind} | asdict(config)


def config_from_dict(values: Mapping[str, Any]) -> NetworkConfig:
    """Read what :func:`config_as_dict` returned; without a kind it is an hourglass.

    Raises
    ------
    ValueError
        If the kind is not known, or a value is not possible.
    TypeError
        If an entry is missing or not known.
    """
    kind = values.get("kind", "hourglass")
    if kind not in KINDS:
        raise ValueError(f"the network is of kind {kind!r}; known are {', '.join(KINDS)}")
    return KINDS[kind](**{name: value for name, value in values.items() if name != "kind"})
