"""What is made ahead by a thread."""

import threading
import traceback

import pytest

from ddbp.data.prefetch import Prefetch


def threads():
    return [each for each in threading.enumerate() if each.name == "ddbp-prefetch"]


def test_what_was_begun_is_taken_and_made_once_in_other_buffers():
    made = []

    def make(side):
        made.append((side, threading.current_thread().name))
        return len(made)

    prefetch = Prefetch()
    assert prefetch.take("a", make) == 1
    for number in range(2, 6):
        prefetch.begin(number, make)
        assert prefetch.take(number, make) == number
    sides, names = zip(*made, strict=True)
    assert sides == (0, 1, 0, 1, 0)
    assert names == ("MainThread", *["ddbp-prefetch"] * 4)
    assert not threads()


def test_what_was_begun_with_another_key_is_made_anew_when_its_thread_is_over():
    begun, go = threading.Event(), threading.Event()

    def slow(side):
        begun.set()
        go.wait()
        return "old"

    prefetch = Prefetch()
    prefetch.begin(1, slow)
    begun.wait()
    threading.Timer(0.05, go.set).start()
    assert prefetch.take(2, lambda side: not threads() and "new") == "new"


def test_error_of_the_thread_is_raised_where_the_batch_is_asked_for_with_its_traceback():
    def broken(side):
        raise OSError("no such file")

    prefetch = Prefetch()
    prefetch.begin(1, broken)
    with pytest.raises(OSError, match="no such file") as caught:
        prefetch.take(1, broken)
    assert "broken" in "".join(traceback.format_tb(caught.value.__traceback__))
    # Of the next one nothing is spoilt.
    prefetch.begin(2, lambda side: 5)
    assert prefetch.take(2, broken) == 5


def test_error_of_what_nobody_asks_for_is_not_raised():
    prefetch = Prefetch()
    prefetch.begin(1, lambda side: 1 / 0)
    prefetch.close()
    assert not threads()


def test_time_that_was_waited_is_told(monkeypatch):
    order, asked = [], threading.Event()

    def clock():
        order.append("looked at")
        asked.set()
        return len(order)

    def make(side):
        asked.wait()
        order.append("made")
        return True

    monkeypatch.setattr("ddbp.data.prefetch.monotonic_ns", clock)
    prefetch = Prefetch()
    prefetch.begin(1, make)
    assert prefetch.take(1, lambda side: None)
    assert order == ["looked at", "made", "looked at"]
    assert prefetch.waited == (1, 3)


def test_thread_that_waits_does_not_keep_the_process_from_its_end(tmp_path):
    import subprocess
    import sys

    script = tmp_path / "script.py"
    script.write_text(
        "import threading\n"
        "from ddbp.data.prefetch import Prefetch\n"
        "prefetch = Prefetch()\n"
        "prefetch.begin(1, lambda side: threading.Event().wait())\n"
    )
    subprocess.run([sys.executable, script], timeout=300, check=True)
