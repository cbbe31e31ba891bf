"""Libraries that come with the extra ``masks``, imported where they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sct_deepspine.errors import DeepSpineError

__all__ = ["needed"]

PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


def needed(module: str) -> Any:
    """Import a module of scikit-image or scikit-learn.

    Raises
    ------
    DeepSpineError
        If it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = PACKAGES[module.partition(".")[0]]
        raise DeepSpineError(
            f"this needs {package}, which is not installed: pip install 'sct_deepspine[masks]'"
        ) from error
