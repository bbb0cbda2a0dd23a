"""Who multiplies tiles for products in the order of TDPBF16PS: the registers of Intel's AMX, where
this processor has them, Numba compiles for them and the system lets this process use them; else
nobody, and plain multiply-adds make the same bits.

`LAYERS_AMX=0` in the environment turns AMX off. `LAYERS_AMX=software` has plain code take its
place, slowly, so that the loops around it can be tested on any processor.
"""

import ctypes
import os
import sys

from layers.errors import message

from . import target
from .machine import has

NOBODY, HARDWARE, SOFTWARE = "", "hardware", "software"

# Linux, x86-64: the number of arch_prctl, what is asked of it, and what permission is asked for.
# Kernel documentation, "Using XSTATE features in user space applications"; asm/prctl.h.
_ARCH_PRCTL = 158
_ARCH_GET_XCOMP_PERM, _ARCH_REQ_XCOMP_PERM = 0x1022, 0x1023
_TILE_CONFIGURATION, _TILE_DATA = 17, 18


def refused() -> str:
    """Ask the system that this process, its threads and those that it forks may use tiles; return
    "", or why they may not. What another program becomes by exec must ask again.
    """
    if not (sys.platform == "linux" and target.llvm.get_process_triple().startswith("x86_64")):
        return "the system is not Linux for x86-64"
    call = ctypes.CDLL(None, use_errno=True).syscall
    number, ask, get, of = map(
        ctypes.c_long, (_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _ARCH_GET_XCOMP_PERM, _TILE_DATA)
    )
    granted = ctypes.c_uint64()
    # What was granted counts: without it the first instruction on a tile ends the process.
    if call(number, ask, of) or call(number, get, ctypes.byref(granted)):
        return f"Linux, or a container, answers: {os.strerror(ctypes.get_errno())}"
    needed = 1 << _TILE_CONFIGURATION | 1 << _TILE_DATA
    return "" if granted.value & needed == needed else "Linux, or a container, grants no tiles"


def _chosen() -> tuple[str, str]:
    """Return who multiplies tiles, and why AMX does not where the processor has it."""
    text = os.environ.get("LAYERS_AMX", "1")
    if text not in ("0", "1", SOFTWARE):
        must, fix = "LAYERS_AMX must be 0, 1 or software", "Leave it out to use AMX if it is there."
        raise ValueError(message("layers", must, repr(text), fix))
    if text == SOFTWARE:
        return SOFTWARE, ""
    if text == "0" or not target.host_has("amx-bf16"):
        return NOBODY, ""
    if not (has("amx-bf16") and has("amx-tile")):
        return NOBODY, "Numba compiles for a processor without (NUMBA_CPU_NAME, NUMBA_CPU_FEATURES)"
    refusal = refused()
    return NOBODY if refusal else HARDWARE, refusal


TILES, REFUSAL = _chosen()
