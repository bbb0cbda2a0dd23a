"""Compilation of the kernels of a first step in two processes, and what is said of it."""

import subprocess
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from ddbp import terminal
from ddbp.comm.cores import available_cores
from layers import Module
from layers.engine.module import is_of_package
from layers.kernels.ahead import Missing, missing
from layers.kernels.cache import CACHE_FOLDER

from .batch import LocalBatch
from .batch_stream import taped
from .warm_up import announces, update_once

if TYPE_CHECKING:
    from .trainer import Trainer

_FEW = 2
"""So many kernels are compiled by the time that another process has begun."""
_PROCESS = "ddbp.training.kernel_process"
_SOON = 2.0
"""Seconds before anything is said of how far it is."""


class Progress:
    """Says how many kernels are compiled, where that takes long.

    Parameters
    ----------
    total
        How many there are.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._live = terminal.is_live()
        self._next = time.perf_counter() + _SOON

    def one_more(self) -> None:
        """Count a kernel."""
        self._done += 1
        now = time.perf_counter()
        if now >= self._next:
            text = f"Compiling kernels: {self._done} of {self._total}"
            terminal.write(f"\r{text}" if self._live else f"{text}\n")
            self._next = now if self._live else now + 5 * _SOON

    def end(self) -> None:
        """Leave the line, if there is one."""
        if self._live and time.perf_counter() >= self._next:
            terminal.write("\n")


def compile_all(
    kernels: Sequence[Missing],
    *,
    meanwhile: Callable[[], None] | None = None,
    cores: int = 1,
    shared: bool = False,
    quiet: bool = True,
) -> None:
    """Compile kernels, where another core is there in two processes, of which each takes the next
    one that nobody has taken.

    Parameters
    ----------
    kernels
        What is to be compiled.
    meanwhile
        What compiles more, by calling it: this process begins with that.
    cores
        On how many cores this process may run.
    shared
        Whether other processes have cores of this host, and wait for this one.
    quiet
        Whether nothing is said.

    Raises
    ------
    KeyboardInterrupt
        Ctrl+C, of which the frames of the compiler say nothing.
    """
    progress, lock = Progress(len(kernels)), Lock()
    lines = [kernel.line() for kernel in kernels]
    own = deque(kernel for kernel, line in zip(kernels, lines, strict=True) if line is None)
    waiting = deque(
        (kernel, line) for kernel, line in zip(kernels, lines, strict=True) if line is not None
    )

    def count() -> None:
        with lock:
            if not quiet:
                progress.one_more()

    helper = None
    if len(waiting) > _FEW and (cores > 1 or shared) and sys.executable:
        # Not every system lets this program be started once more, as an emulator may not.
        with suppress(OSError):
            helper = _Helper(waiting, count, all_cores=cores == 1)
    try:
        if meanwhile is not None:
            meanwhile()
        with suppress(IndexError):
            while True:
                kernel = own.popleft() if own else waiting.popleft()[0]
                # Who calls it says what is wrong with it.
                with suppress(Exception):
                    kernel.compile()
                count()
    except KeyboardInterrupt:
        waiting.clear()
        if helper is not None:
            helper.end()
        raise KeyboardInterrupt from None
    finally:
        if helper is not None:
            helper.join()
        if not quiet:
            progress.end()


class _Helper:
    """Another process, and the thread that gives it the last of the kernels that wait."""

    def __init__(
        self, waiting: deque[tuple[Missing, bytes]], count: Callable[[], None], *, all_cores: bool
    ) -> None:
        self._waiting = waiting
        self._count = count
        command = [sys.executable, "-m", _PROCESS, *(["all-cores"] if all_cores else [])]
        # What goes wrong there is compiled here, and said here.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._thread = Thread(target=self._give, daemon=True)
        self._thread.start()

    def _give(self) -> None:
        pipe, answers = self._process.stdin, self._process.stdout
        assert pipe is not None
        assert answers is not None
        # Where it has ended before its time, who calls the kernel finds no code, and compiles it.
        with suppress(IndexError, OSError), pipe:
            while True:
                pipe.write(self._waiting.pop()[1])
                pipe.flush()
                if not answers.readline():
                    break
                self._count()

    def end(self) -> None:
        """Have it end at once."""
        self._process.kill()

    def join(self) -> None:
        """Wait until it has done what it was given."""
        self._thread.join()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def compile_step(trainer: "Trainer", rows: LocalBatch) -> None:
    """Compile the kernels of a step on rows, known from a step in which those that have no code do
    nothing. Only where no code of a user would see what comes of that.
    """
    ours = trainer.options.rule is None and all(map(_is_ours, (trainer.model, trainer.loss)))
    if CACHE_FOLDER is None or not ours:
        return
    with missing() as kernels, warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        # What is computed is void, so that anything may go wrong: then some are not known.
        with suppress(Exception):
            _practise(trainer, rows)
    if kernels:
        ranks, plan = trainer.comm.of_host.size, trainer._plan
        # Several ranks have done it.
        update = partial(
            update_once, trainer.optimizer, trainer._flat.dtype, shards=min(plan.shards, 2)
        )
        compile_all(
            kernels,
            meanwhile=update if trainer.comm.size == 1 else None,
            cores=available_cores(),
            shared=ranks > 1,
            quiet=trainer.comm.rank > 0 or not announces(),
        )


def _practise(trainer: "Trainer", rows: LocalBatch) -> None:
    """Propagate rows forward and backward, and forget it."""
    try:
        batch = taped(trainer, rows, telling=False)
        assert batch.tape is not None
        # No step is replayed that was none.
        batch.tape.notes = None
        trainer._run_pass(batch).tape.release()
    finally:
        trainer._update.group.restart()


def _is_ours(called: Any) -> bool:
    """Return whether a model or a loss is made of this project's layers alone."""
    return isinstance(called, Module) and all(
        is_of_package(type(each)) for _, each in called.named_layers()
    )
