"""Label the intervertebral discs of a spine MRI, and segment cord, canal, vertebrae and discs.

Importing the package is light: torch is loaded when :func:`label_discs` is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sct_deepspine._version import __version__

if TYPE_CHECKING:
    from sct_deepspine.anatomy import disc_name
    from sct_deepspine.errors import (
        AnchorError,
        DatasetError,
        DeepSpineError,
        DeviceError,
        GeometryError,
        ImageError,
        LabelsError,
        NoDiscsError,
        OutputError,
        RequestError,
        SctError,
        UncertainError,
        WeightsError,
    )
    from sct_deepspine.labeling.pipeline import label_discs
    from sct_deepspine.labeling.session import SessionLabels, label_session
    from sct_deepspine.labels import Disc, DiscLabels
    from sct_deepspine.segmentation.masks import SpineMasks
    from sct_deepspine.segmentation.pipeline import segment_spine
    from sct_deepspine.workflow.request import ScanRequest
    from sct_deepspine.workflow.result import ScanResult
    from sct_deepspine.workflow.scan import process_scan

__all__ = [
    "AnchorError",
    "DatasetError",
    "DeepSpineError",
    "DeviceError",
    "Disc",
    "DiscLabels",
    "GeometryError",
    "ImageError",
    "LabelsError",
    "NoDiscsError",
    "OutputError",
    "RequestError",
    "ScanRequest",
    "ScanResult",
    "SctError",
    "SessionLabels",
    "SpineMasks",
    "UncertainError",
    "WeightsError",
    "__version__",
    "disc_name",
    "label_discs",
    "label_session",
    "process_scan",
    "segment_spine",
]

_HOMES = {
    "label_discs": "labeling.pipeline",
    "Disc": "labels",
    "DiscLabels": "labels",
    "SessionLabels": "labeling.session",
    "SpineMasks": "segmentation.masks",
    "label_session": "labeling.session",
    "disc_name": "anatomy",
    "ScanRequest": "workflow.request",
    "ScanResult": "workflow.result",
    "process_scan": "workflow.scan",
    "segment_spine": "segmentation.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    own = {name for name in globals() if name.startswith("__") and name.endswith("__")}
    return sorted({*own, *__all__})
