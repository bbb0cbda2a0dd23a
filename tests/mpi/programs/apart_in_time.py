"""Run `traced.py` where the clock of the second host is ahead. Usage: apart_in_time.py FOLDER."""

import time
from unittest import mock

import traced

import ddbp

AHEAD = 5.0


def main() -> None:
    """Fit with a timeline, on clocks of two hosts."""
    ahead = AHEAD * ddbp.communicator().topology.own
    seconds, nanoseconds = time.monotonic, time.monotonic_ns

    def ahead_s() -> float:
        return seconds() + ahead

    def ahead_ns() -> int:
        return nanoseconds() + int(1e9 * ahead)

    with (
        mock.patch.object(time, "monotonic", ahead_s),
        mock.patch.object(time, "monotonic_ns", ahead_ns),
        mock.patch("ddbp.training.trace.monotonic_ns", ahead_ns),
    ):
        traced.main()


if __name__ == "__main__":
    main()
