"""What can go wrong, in one family, so that a caller needs to catch one class only."""

__all__ = [
    "AnchorError",
    "DatasetError",
    "DeepSpineError",
    "DeviceError",
    "GeometryError",
    "ImageError",
    "LabelsError",
    "NoDiscsError",
    "OutputError",
    "RequestError",
    "SctError",
    "UncertainError",
    "WeightsError",
]


class DeepSpineError(Exception):
    """Base of every error raised on purpose. Its text is one line: what was met, what to do."""


class ImageError(DeepSpineError, ValueError):
    """The image can't be read, or is not one 3-D volume with usable voxels."""


class DatasetError(DeepSpineError, ValueError):
    """A folder of images and masks, or a download, is incomplete or of another layout."""


class GeometryError(DeepSpineError, ValueError):
    """An affine, a centreline or a displacement field that defines no usable space."""


class AnchorError(DeepSpineError, ValueError):
    """The disc given as an anchor does not exist or does not fit the image."""


class LabelsError(AnchorError):
    """Labels that a person made can't be read, contradict themselves, or don't belong to the image."""


class RequestError(DeepSpineError, ValueError):
    """What was asked for can't be done, or excludes itself."""


class NoDiscsError(DeepSpineError, LookupError):
    """No spine was found in the image."""


class UncertainError(DeepSpineError, ValueError):
    """The levels are less certain than was asked for."""


class WeightsError(DeepSpineError, RuntimeError):
    """A weights file is missing, altered, or does not fit the network on its card."""


class DeviceError(DeepSpineError, RuntimeError):
    """The machine has no such device for the networks to run on."""


class OutputError(DeepSpineError, OSError):
    """A result can't be written where it was asked for."""


class SctError(DeepSpineError, RuntimeError):
    """The Spinal Cord Toolbox, its programs or its template are missing, or one of its commands failed."""
