"""Data that need not be in memory, and parts of data; those in memory are `ddbp.ArrayDataset`."""

from .array_source import ArraySource
from .arrow_source import ArrowSource
from .handwritten import digits
from .item_source import GeneratorSource, ItemSource
from .mapped import open_arrays
from .source import Rows, Source
from .splits import split

__all__ = [
    "ArraySource",
    "ArrowSource",
    "GeneratorSource",
    "ItemSource",
    "Rows",
    "Source",
    "digits",
    "open_arrays",
    "split",
]
