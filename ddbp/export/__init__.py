"""Models in and out: bundles, PyTorch's names and layouts, ONNX."""

from .architecture import ArchitectureError, architecture, build
from .archive import BundleError
from .bundle import Bundle, load_bundle, save_bundle
from .exchange import from_torch, to_torch
from .kinds import register
from .onnx.model import to_onnx

__all__ = [
    "ArchitectureError",
    "Bundle",
    "BundleError",
    "architecture",
    "build",
    "from_torch",
    "load_bundle",
    "register",
    "save_bundle",
    "to_onnx",
    "to_torch",
]
