"""The Spinal Cord Toolbox: the only package that imports it.

``toolbox`` runs its commands, ``registration`` brings labels to its template; nothing is imported
before it is used.
"""

from importlib import import_module
from typing import Any

__all__ = [
    "LeftOut",
    "Registration",
    "add_drawn_qc_entry",
    "add_qc_entry",
    "argument_parser",
    "centerline_from_sct",
    "read_sct_image",
    "register_to_template",
    "require_sct",
    "sct_is_installed",
    "show_viewer",
    "straighten",
    "template_labels",
    "temporary_folder",
]

_MODULES = {
    "add_drawn_qc_entry": "toolbox",
    "add_qc_entry": "toolbox",
    "argument_parser": "toolbox",
    "centerline_from_sct": "toolbox",
    "read_sct_image": "toolbox",
    "require_sct": "toolbox",
    "sct_is_installed": "toolbox",
    "show_viewer": "toolbox",
    "temporary_folder": "toolbox",
    "LeftOut": "registration",
    "Registration": "registration",
    "register_to_template": "registration",
    "straighten": "registration",
    "template_labels": "registration",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
