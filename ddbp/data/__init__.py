"""Data that need not be in memory, parts of data, files of all kinds and named data sets; those in
memory are `ddbp.ArrayDataset`.
"""

from .array_source import ArraySource
from .arrow_source import ArrowSource
from .cifar import CIFAR, read_cifar
from .handwritten import digits
from .idx import read_idx
from .images import ImageArrays, ImageFolder, ImageReader
from .item_source import GeneratorSource, ItemSource
from .kinds import preprocessing
from .lines import LabelledLines, read_lines, read_text
from .mapped import open_arrays
from .named import load, named_sets
from .prepared import PreparedDataset
from .preprocess import Preprocessing
from .series import Series, SeriesReader
from .series_files import read_series_folder, read_series_table, read_ts
from .skipped import Skipped
from .source import Rows, Source
from .splits import split
from .table import Table, read_table
from .table_encoder import EncodedTable, TableEncoder
from .text import TextEncoder
from .text_windows import TextWindows

__all__ = [
    "CIFAR",
    "ArraySource",
    "ArrowSource",
    "EncodedTable",
    "GeneratorSource",
    "ImageArrays",
    "ImageFolder",
    "ImageReader",
    "ItemSource",
    "LabelledLines",
    "PreparedDataset",
    "Preprocessing",
    "Rows",
    "Series",
    "SeriesReader",
    "Skipped",
    "Source",
    "Table",
    "TableEncoder",
    "TextEncoder",
    "TextWindows",
    "digits",
    "load",
    "named_sets",
    "open_arrays",
    "preprocessing",
    "read_cifar",
    "read_idx",
    "read_lines",
    "read_series_folder",
    "read_series_table",
    "read_table",
    "read_text",
    "read_ts",
    "split",
]
