"""The version of gemmgen, in one place."""

__version__ = "0.1.0"
