"""What defines a network, apart from its weights. Imports nothing that runs one."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["PAPER", "NetworkConfig"]


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that defines a network.

    Parameters
    ----------
    channels
        Maps drawn.
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
        for name, value in asdict(self).items():
            if name != "attention" and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.stride not in (2, 4):
            raise ValueError(f"stride must be 2 or 4, got {self.stride}")
        if self.width % 4:
            raise ValueError(f"width must be a multiple of 4, got {self.width}")

    @property
    def multiple(self) -> int:
        """Rows and columns of an input must be multiples of this."""
        return self.stride * 2**self.depth


PAPER = NetworkConfig(channels=11, in_channels=3, width=256, stride=4)
"""The configuration of Azad et al. 2021: 6,795,086 parameters (6,727,062 without attention)."""
