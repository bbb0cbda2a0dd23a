"""Settings by environment variables: all that begin with DDBP_, read and checked in this one place.

Each function raises ValueError if the variable's text is not what it must be.
"""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddbp import written
from layers.errors import message
from layers.kernels.cache_folder import others_may_write

MPI = "DDBP_MPI"
"""0 or 1: whether this process is one of an MPI job, whatever its launcher says."""
TIMEOUT = "DDBP_TIMEOUT"
"""Seconds that a rank waits for others."""
STALL_TIMEOUT = "DDBP_STALL_TIMEOUT"
"""Seconds without progress after which the watchdog of a rank ends the run."""
SHARED_MEMORY = "DDBP_SHARED_MEMORY"
"""0: ranks of one host share no memory."""
RANKS_OF_HOST = "DDBP_RANKS_OF_HOST"
"""Take so many neighbouring ranks for a host, of those that share memory."""
WHOLE_HOSTS = "DDBP_WHOLE_HOSTS"
"""1: each host updates all parameters, and holds all moments of the optimizer."""
SHARDS = "DDBP_SHARDS"
"""The number of shards of trainers that are given none."""
RANKS = "DDBP_RANKS"
"""The number of ranks in the beginning, where it may change."""
BUCKET = "DDBP_BUCKET"
"""KiB of gradients that hosts exchange at a time."""
RESUME = "DDBP_RESUME"
"""1: trainers with a run folder go on from the newest checkpoint in it, as `ddbp launch` asks of a
run that begins again.
"""
CHECK_MEMORY = "DDBP_CHECK_MEMORY"
"""1: bits that have flipped in parameters and moments are looked for ahead of each update."""
COMPARE_EVERY = "DDBP_COMPARE_EVERY"
"""Steps after which ranks and hosts compare what they hold copies of, 0 for never."""
STATUS = "DDBP_STATUS"
"""A folder where ranks keep where they are, for `ddbp launch`."""
SURVIVE = "DDBP_SURVIVE"
"""Three numbers for a rank of `ddbp launch --survive`: the file that it shares with others, how
many slots that has, and its own slot. Or "mpi": ranks under mpirun survive each other.
"""
JOB = "DDBP_JOB"
"""As SURVIVE, three numbers for a rank that `Trainer.fit(ranks=…)` has started; if one is killed,
all end.
"""
PROGRESS = "DDBP_PROGRESS"
"""The descriptor on which rank 0 tells the process that has started it how far training is."""
BIND = "DDBP_BIND"
"""1: ranks of one host bind themselves to cores, as `ddbp launch` asks."""
RANK_PROCESS = "DDBP_RANK_PROCESS"
"""The process that is a rank; those that it starts inherit the launcher's environment, and are
none.
"""
VERIFY, VERIFY_STEPS = "DDBP_VERIFY", "DDBP_VERIFY_STEPS"
"""A folder where ranks log their steps, for `ddbp verify`, and the number of steps after which
training is over.
"""
REPLAY = "DDBP_REPLAY"
"""A folder with what `ddbp replay` asks for, where the answer goes."""
DATA = "DDBP_DATA"
"""The folder where data are kept that were downloaded or converted."""
FIX = "DDBP_FIX"
"""What `ddbp doctor --fix` has a trainer of a script do otherwise: JSON with its number in the
script, the folder of its run, and options with their new values.
"""

COMPARE_EVERY_DEFAULT = 100

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""What libraries ask for the number of their threads."""

BY_MPI = "mpi"
"""What SURVIVE says of ranks under mpirun."""

_LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "PMI_RANK", "MPI_LOCALNRANKS")
_OF_LAUNCHERS = (
    *("PMI", "OMPI_", "ORTE_", "PRTE_", "MPI_", "MPIEXEC_", "MPIR_", "HYDRA_", "HYDI_", "I_MPI_"),
    *("MV2_", "MVAPICH", "SLURM_", "PALS_", "ALPS_", "FLUX_", "JSM_"),
)
"""How the names begin of variables that launchers of MPI set, and what they are launched by."""
_OF_A_RUN = (
    *(MPI, SURVIVE, JOB, PROGRESS, RANK_PROCESS, STATUS, RANKS, SHARDS, RESUME, RANKS_OF_HOST),
    *(VERIFY, VERIFY_STEPS, REPLAY, FIX),
)
"""Variables that are for the process that they were set for alone."""
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")


def launched_under_mpi() -> bool:
    """Return whether an MPI launcher started this process (`DDBP_MPI=0` or `1` overrides)."""
    chosen = os.environ.get(MPI)
    if chosen in ("0", "1"):
        return chosen == "1"
    slurm = "SLURM_STEP_ID" in os.environ and (_integer("SLURM_STEP_NUM_TASKS") or 1) > 1
    return slurm or any(name in os.environ for name in _LAUNCHED)


def launched_to_survive() -> tuple[int, int, int] | None:
    """Return what `ddbp launch --survive` tells a rank: file, number of slots and slot; None if it
    did not start this process (nor with `DDBP_MPI=0`).
    """
    text = os.environ.get(SURVIVE)
    if not text or text == BY_MPI or os.environ.get(MPI) == "0":
        return None
    return _slot(SURVIVE, text, f" or {BY_MPI}", "Leave it to `ddbp launch`.")


def launched_in_job() -> tuple[int, int, int] | None:
    """Return what `Trainer.fit(ranks=…)` tells a rank, as of `launched_to_survive`; None if it did
    not start this process.
    """
    text = os.environ.get(JOB)
    return None if not text else _slot(JOB, text, "", "Leave it to `Trainer.fit(ranks=…)`.")


def _slot(name: str, text: str, other: str, fix: str) -> tuple[int, int, int]:
    """Return the three numbers in the text of a variable, which could be an `other` one."""
    try:
        descriptor, slots, slot = map(written.integer, text.split(" "))
    except ValueError:
        descriptor = slots = slot = -1
    if not all(0 <= number < 10**9 for number in (descriptor, slots, slot)):
        must = f"{name} must be three numbers{other}"
        raise ValueError(message("ddbp", must, repr(text), fix))
    return descriptor, slots, slot


def environment_of_job(**more: str) -> dict[str, str]:
    """Return the environment of ranks that this process starts, whoever has launched it: one
    thread, a core of their own, and what else is given.
    """
    kept = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(_OF_LAUNCHERS) and name not in _OF_A_RUN
    }
    return {BIND: "1", **kept, **dict.fromkeys(ONE_THREAD, "1"), **more}


def binds(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether ranks with this environment run on cores of their own."""
    return environment.get(BIND) == "1"


def survives_by_mpi() -> bool:
    """Return whether ranks under mpirun are to survive each other."""
    return os.environ.get(SURVIVE) == BY_MPI


def launched() -> bool:
    """Return whether this process has been started as one of several ranks."""
    return (
        launched_in_job() is not None or launched_to_survive() is not None or launched_under_mpi()
    )


def claim_rank() -> bool:
    """Note that this process is the rank, if a launcher started it, and return whether it is:
    processes that it starts will know that they are not.
    """
    own = str(os.getpid())
    return launched() and os.environ.setdefault(RANK_PROCESS, own) == own


def is_started_by_a_rank() -> bool:
    """Return whether this process has the environment of a rank, but not its connection to the
    launcher.
    """
    if os.environ.get(RANK_PROCESS, str(os.getpid())) != str(os.getpid()):
        return True
    try:
        descriptor = os.environ.get("PMI_FD")
        return descriptor is not None and not stat.S_ISSOCK(
            os.fstat(written.integer(descriptor)).st_mode
        )
    except (OSError, ValueError):
        return True


def launched_by_open_mpi() -> bool:
    """Return whether the launcher is Open MPI's."""
    return "OMPI_COMM_WORLD_SIZE" in os.environ


def launched_ranks() -> int | None:
    """Return the number of ranks that the launcher has started, as far as it says so."""
    return next((size for name in _SIZES if (size := _integer(name))), None)


def launched_local_ranks() -> int | None:
    """Return the number of ranks on this host, if MPICH's launcher says so."""
    return _integer("MPI_LOCALNRANKS")


def timeout() -> float:
    """Return the seconds that a rank waits for others."""
    return _seconds(TIMEOUT, "Unset it for 300 seconds; inf waits for ever.") or 300.0


def stall_timeout() -> float | None:
    """Return the seconds without progress after which a run is ended, None to learn them."""
    return _seconds(STALL_TIMEOUT, "Unset it to have it learned; inf waits for ever.")


def resumes() -> bool:
    """Return whether trainers with a run folder go on from the newest checkpoint in it."""
    return os.environ.get(RESUME) == "1"


def shares_memory() -> bool:
    """Return whether ranks of one host may share memory."""
    return os.environ.get(SHARED_MEMORY) != "0"


def ranks_of_host() -> int | None:
    """Return how many of the ranks that share memory are taken for a host, None for all."""
    return _integer(RANKS_OF_HOST)


def whole_hosts() -> bool:
    """Return whether each host updates all parameters, and holds all moments of the optimizer."""
    text = os.environ.get(WHOLE_HOSTS, "")
    if text not in ("", "0", "1"):
        must, fix = f"{WHOLE_HOSTS} must be 0 or 1", "Unset it for 0."
        raise ValueError(message("ddbp", must, repr(text), fix))
    return text == "1"


def shards() -> int | None:
    """Return the number of shards of trainers that are given none."""
    return _integer(SHARDS, most=2**20)


def ranks() -> int | None:
    """Return the number of ranks in the beginning, where it may change."""
    return _integer(RANKS, most=2**20)


def checks_memory() -> bool:
    """Return whether bits that have flipped are looked for ahead of each update."""
    return os.environ.get(CHECK_MEMORY) == "1"


def compare_every() -> int:
    """Return after how many steps ranks compare copies, 0 for never."""
    chosen = _integer(COMPARE_EVERY, "number of steps", least=0)
    return COMPARE_EVERY_DEFAULT if chosen is None else chosen


def bucket() -> int | None:
    """Return the bytes of a bucket, 0 for a single one."""
    chosen = _integer(BUCKET, "number of KiB", least=0)
    return None if chosen is None else 1024 * chosen


def status_folder() -> Path | None:
    """Return the folder where ranks keep where they are."""
    folder = _folder(STATUS)
    try:
        reason = "" if folder is None else others_may_write(folder.lstat())
    except OSError:
        # It is on another host.
        return None
    if reason:
        must, fix = f"{STATUS} must be a folder of this user alone", "Leave it to `ddbp launch`."
        raise ValueError(message("ddbp", must, f"{folder}, {reason}", fix))
    return folder


def progress() -> int | None:
    """Return the descriptor on which rank 0 tells how far training is, None where it shows it."""
    return _integer(PROGRESS, "number of a file", least=0)


def verify_folder() -> Path | None:
    """Return the folder where ranks log their steps."""
    return _folder(VERIFY)


def verify_steps() -> int | None:
    """Return the number of steps after which training is over."""
    return _integer(VERIFY_STEPS)


def replay_folder() -> Path | None:
    """Return the folder with what `ddbp replay` asks for."""
    return _folder(REPLAY)


def fix() -> dict[str, Any] | None:
    """Return what `ddbp doctor --fix` asks for: `trainer`, `run_dir` and `changes`."""
    text = os.environ.get(FIX)
    if not text:
        return None
    try:
        asked: dict[str, Any] = json.loads(text)
        known = {*asked} == {"trainer", "run_dir", "changes"} and type(asked["changes"]) is dict
    except (RecursionError, TypeError, ValueError):
        known = False
    if not known:
        must = f"{FIX} must be what `ddbp doctor --fix` sets"
        raise ValueError(message("ddbp", must, repr(text), "Unset it."))
    return asked


def data_folder() -> Path:
    """Return the folder where data are kept that were downloaded or converted."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path.home() / ".cache"
    return _folder(DATA) or base / "ddbp" / "data"


def of_all_ranks() -> dict[str, str]:
    """Return the texts of settings that all ranks must have in common."""
    names = (BUCKET, COMPARE_EVERY, WHOLE_HOSTS)
    return {name: os.environ.get(name, "") for name in names}


def _folder(name: str) -> Path | None:
    text = os.environ.get(name)
    return Path(text).absolute() if text else None


def _seconds(name: str, fix: str) -> float | None:
    """Return the seconds in a variable, or None if it is not set."""
    text = os.environ.get(name)
    if text is None:
        return None
    try:
        seconds = written.real(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        must = f"{name} must be a positive number of seconds"
        raise ValueError(message("ddbp", must, repr(text), fix))
    return seconds


def _integer(
    name: str, kind: str = "positive integer", least: int = 1, most: int = 2**40
) -> int | None:
    """Return the integer in a variable, or None if it is not set; `kind` says what it must be."""
    text = os.environ.get(name, "")
    if not text:
        return None
    try:
        number = written.integer(text)
    except ValueError:
        number = -1
    if not least <= number <= most:
        own = name.startswith("DDBP_")
        fix = "Unset it for the default." if own else "Unset it: a launcher of MPI sets it anew."
        raise ValueError(message("ddbp", f"{name} must be a {kind}", repr(text), fix))
    return number
