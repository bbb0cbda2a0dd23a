"""Data: samples, data sets, and their order."""

from .handwritten import digits

__all__ = ["digits"]
