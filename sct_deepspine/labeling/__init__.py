"""From an image to its discs: the story is :func:`label_discs`, its stages are the modules.

It knows geometry, images and networks; it writes nothing and draws nothing.
"""

from importlib import import_module
from typing import Any

__all__ = ["label_discs"]

_MODULES = {"label_discs": "pipeline"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
