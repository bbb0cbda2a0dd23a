"""The table of cases: every layer with every option. Adding a layer means adding a row, and a twin in tests/layers/twins.

The contract suite, `ddbp gradcheck` and the mutation score all read this table. A family of layers has a file of cases of
the same name.
"""

from . import conv, embedding, general, norm, pool, recurrent
from .case import BATCH, Apply, Case

CASES = (*general.CASES, *conv.CASES, *embedding.CASES, *norm.CASES, *pool.CASES, *recurrent.CASES)

__all__ = ["BATCH", "CASES", "Apply", "Case"]
