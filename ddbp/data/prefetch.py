"""What comes next is made by a thread, while what came before is used."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic_ns
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")


class Prefetch(Generic[Made]):
    """Makes one thing ahead, in a thread that ends when it is made.

    What is made must be a function of its key. `make` is given 0 or 1, whose buffers it may use:
    not those of what was taken last. An error in the thread is raised where the thing is asked for,
    with the traceback of the thread. A thread that waits for a file or a network keeps neither the
    process from its end nor an interrupt from its effect.

    Attributes
    ----------
    waited
        From when to when the last `take` has waited, nanoseconds of `time.monotonic_ns`.
    """

    def __init__(self) -> None:
        self.waited = 0, 0
        self._thread: threading.Thread | None = None
        self._future: Future[Made] = Future()
        self._key: Any = None
        self._side = 0

    def begin(self, key: Any, make: Callable[[int], Made]) -> None:
        """Have what has this key be made."""
        self.close()
        self._key, self._future, self._side = key, Future(), 1 - self._side
        arguments = self._future, make, self._side
        self._thread = threading.Thread(
            target=_run, args=arguments, name="ddbp-prefetch", daemon=True
        )
        self._thread.start()

    def take(self, key: Any, make: Callable[[int], Made]) -> Made:
        """Return what has this key, made ahead or now."""
        began = monotonic_ns()
        try:
            if self._thread is not None and self._key == key:
                made = self._future.result()
                self.close()
                return made
            self.close()
            return make(self._side)
        finally:
            self.waited = began, monotonic_ns()

    def close(self) -> None:
        """Forget what is made ahead, if anything, when its thread is over."""
        if self._thread is not None:
            self._thread.join()
        self._thread, self._key, self._future = None, None, Future()


def _run(future: "Future[Made]", make: Callable[[int], Made], side: int) -> None:
    try:
        future.set_result(make(side))
    except BaseException as error:
        future.set_exception(error)
