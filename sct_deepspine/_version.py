"""The version, once."""

__version__ = "0.7.0"
