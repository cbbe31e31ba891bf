"""Label the intervertebral discs of a spine MRI."""

from sct_deepspine._version import __version__

__all__ = ["__version__"]
