"""From one scan and one request to one result and its files; the commands and the batch are built on it.

:func:`process_scan` does the work of one scan, :class:`ScanRequest` holds what can be asked for,
:class:`ScanResult` what came of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sct_deepspine.workflow.request import ScanRequest
    from sct_deepspine.workflow.result import ScanResult
    from sct_deepspine.workflow.scan import process_scan

__all__ = ["ScanRequest", "ScanResult", "process_scan"]

_MODULES = {"ScanRequest": "request", "ScanResult": "result", "process_scan": "scan"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
