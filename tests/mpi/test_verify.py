"""`ddbp verify`: scripts that are right are equal to the last bit on 1, 2 and 3 ranks, and those
that are not are found out.
"""

import os
import re
import time
from pathlib import Path

import pytest

from .ranks import in_full

PROGRAM = Path(__file__).parent / "programs" / "verified.py"
SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module", autouse=True)
def _launcher(mpirun):
    """Skip these tests where there is no launcher."""


@pytest.fixture
def verify(run_python):
    """Run `ddbp verify` with these arguments."""

    def run(*arguments, timeout=600, **options):
        return run_python("-m", "ddbp", "verify", *arguments, timeout=timeout, **options)

    return run


def rows(out):
    """Return (ranks, steps, digest, verdict) of each line of the table."""
    found = re.findall(r"^ +(\d+) +(\d+) +(\w{12}) +[\d.]+ +(\w+) *$", out, re.MULTILINE)
    return [(int(ranks), int(steps), digest, verdict) for ranks, steps, digest, verdict in found]


def test_loops_and_fits_are_equal_on_any_number_of_ranks(verify):
    finished = verify("-n", "1,2,3", PROGRAM, "nothing")
    assert finished.status == 0, finished.err
    table = rows(finished.out)
    assert [ranks for ranks, *_ in table] == [1, 1, 2, 3]
    # Two epochs of five batches, and four more by fit.
    assert {steps for _, steps, *_ in table} == {30}
    assert len({digest for *_, digest, _ in table}) == 1
    assert [verdict for *_, verdict in table] == ["reference", "equal", "equal", "equal"]


@pytest.mark.parametrize("ranks", ["1,3", *in_full("1,2,3,4")])
def test_every_script_is_equal_on_any_number_of_ranks(ranks, verify, tmp_path, monkeypatch):
    # All of them in one process, which takes a tenth of the time: scripts/bench/verify_scripts.py
    # verifies them one by one.
    finished = verify("-n", ranks, "--steps", 3, PROGRAM.with_name("all_scripts.py"), tmp_path)
    assert finished.status == 0, finished.out + finished.err
    table = rows(finished.out)
    # Three steps of each trainer; the first number of ranks runs twice.
    numbers, steps = [1, *map(int, ranks.split(","))], 3 * len(verified(monkeypatch))
    assert [row[:2] for row in table] == [(number, steps) for number in numbers]
    assert [verdict for *_, verdict in table] == ["reference", *["equal"] * (len(numbers) - 1)]


def verified(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS / "bench")
    from lib.verified_scripts import VERIFIED

    return VERIFIED


def test_every_script_that_trains_is_among_them(monkeypatch):
    trains = {path.name for path in SCRIPTS.glob("*.py")} - {"attribute.py"}
    assert {script for script, *_ in verified(monkeypatch).values()} == trains


# What each deed must be found out as: the line that names the place, and the value that is named.
FOUND = {
    "noise of ranks": (
        "3 ranks and 1 rank differ first in trainer 1, step 3, in 9 of 9 values:",
        "loss",
    ),
    # What is taken from a value as an array leaves the tape, which could have refused it.
    "centre the samples of a rank": (
        "3 ranks and 1 rank differ first in trainer 1, step 3, in 9 of 9 values:",
        "loss",
    ),
    "forget the seed": (
        "1 rank again and 1 rank differ first in trainer 1, step 3, in 9 of 9 values:",
        "loss",
    ),
    "corrupt a parameter": (
        (
            "rank 1 of 3 and rank 0 of 3 differ first in trainer 1, a change from outside before"
            " step 4, in 1 of 1 values:"
        ),
        "parameter layers.0.bias",
    ),
    "corrupt a state": (
        (
            "rank 1 of 3 and rank 0 of 3 differ first in trainer 1, a change from outside before"
            " step 4, in 1 of 1 values:"
        ),
        "state layers.1.running_mean",
    ),
    "corrupt the second trainer": (
        (
            "rank 2 of 3 and rank 0 of 3 differ first in trainer 2, a change from outside before"
            " step 1, in 1 of 1 values:"
        ),
        "parameter layers.4.weight",
    ),
    "corrupt at the end": (
        "rank 1 of 3 and rank 0 of 3 differ first in trainer 2, the end, in 1 of 8 values:",
        "parameter layers.0.bias",
    ),
    "stop early": (
        "3 ranks and 1 rank do different things: trainer 2, nothing more, and the start",
        None,
    ),
}


# The others are found by the same comparison, of other values or at another place.
IN_FULL = ("noise of ranks", "corrupt a state", "corrupt the second trainer", "corrupt at the end")


@pytest.mark.parametrize(
    "deed",
    [*(deed for deed in FOUND if deed not in IN_FULL), *in_full(*IN_FULL)],
)
def test_what_differs_is_named_with_place_and_both_values(deed, verify):
    # Ranks that share memory share their parameters, so that they cannot differ.
    apart = {"DDBP_SHARED_MEMORY": "0"} if deed.startswith("corrupt") else {}
    finished = verify("-n", "1" if deed == "forget the seed" else "1,3", PROGRAM, deed, **apart)
    assert finished.status == 1
    assert [verdict for *_, verdict in rows(finished.out)][-1] == "different"
    place, name = FOUND[deed]
    lines = finished.out.splitlines()
    assert place in lines
    if name is not None:
        told = lines[lines.index(place) + 1 :]
        assert told[0] == f"  {name}"
        ours, theirs = (line.split(": ", 1)[1] for line in told[1:3])
        assert ours != theirs


@pytest.mark.parametrize("deed", ["loop for ever", *in_full("nothing")])
def test_steps_end_each_trainer_and_the_script_goes_on(deed, verify):
    finished = verify("-n", "1,2", "--steps", 7, PROGRAM, deed)
    assert finished.status == 0, finished.err
    # Two trainers; the loop that never ends is left with the script.
    assert [(ranks, steps) for ranks, steps, *_ in rows(finished.out)] == [
        (1, 14),
        (1, 14),
        (2, 14),
    ]


def test_module_is_verified_as_a_script_is(verify):
    finished = verify("-n", "1,2", "--steps", 2, "-m", PROGRAM.stem, "nothing", cwd=PROGRAM.parent)
    assert finished.status == 0, finished.err
    assert [(ranks, steps) for ranks, steps, *_ in rows(finished.out)] == [(1, 4), (1, 4), (2, 4)]


def test_script_that_fails_is_shown_with_its_traceback(verify):
    finished = verify("-n", "1,2,3", PROGRAM, "raise")
    assert finished.status == 1
    assert "of 2] RuntimeError: the deed" in finished.err
    assert 'verified.py", line' in finished.err
    assert "ddbp verify: the script must end well on 2 ranks; got status " in finished.err


def test_shards_of_the_script_win_and_must_suffice(verify):
    enough = verify("-n", "1,2", "--steps", 2, PROGRAM, "five shards")
    assert enough.status == 0, enough.err
    too_few = verify("-n", "1,3", PROGRAM, "too few shards")
    assert too_few.status == 1
    said = (
        "Trainer: shards must be at least 3, to be verified on 3 ranks; got 2. Pass shards=3 or"
        " more, leave it out, or"
    )
    assert said in too_few.err
    assert "must end well on 1 rank; got status 1" in too_few.err


def test_script_that_hangs_is_ended_with_all_its_ranks(verify, tmp_path):
    for seconds in (10, 60, 180):
        started = time.monotonic()
        finished = verify("-n", "2", "--timeout", seconds, "--keep", tmp_path, PROGRAM, "hang")
        assert finished.status == 1
        assert time.monotonic() - started < seconds + 60
        steps = _read(tmp_path / "run0-2-ranks" / "trainer0-rank1.jsonl").count(b"step")
        # On a busy machine ranks may take that long to start.
        if "after step 2" in finished.err and steps >= 2:
            break
    said = (
        "ddbp verify: the script must end well on 2 ranks; got no end within"
        f" {seconds} s, after step 2: it was killed. Raise --timeout"
    )
    assert said in finished.err
    end = time.monotonic() + 60
    while (left := hanging()) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []
    assert steps >= 2


def hanging():
    """Return the processes of the script that hangs."""
    command = f"{PROGRAM}\0hang".encode()
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if command in _read(path)]


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_script_that_does_not_train_is_refused(verify, tmp_path):
    (tmp_path / "script.py").write_text("print('nothing to do')\n")
    finished = verify("-n", "1", tmp_path / "script.py")
    assert finished.status == 1
    assert (
        "ddbp verify: the script must take a step of training; got none on 1 rank. Train with"
        " ddbp.Trainer" in finished.err
    )


def test_keeping_records_needs_no_clean_folder(verify, tmp_path):
    for deed in ("nothing", "stop early"):
        finished = verify("-n", "1", "--steps", 2, "--keep", tmp_path, PROGRAM, deed)
        assert finished.status == 0, finished.err
    names = sorted(os.listdir(tmp_path / "run1-1-ranks"))
    assert names == ["output.txt", "trainer0-rank0.jsonl", "trainer1-rank0.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-n", "0,1"), "must be numbers of ranks with commas, such as 1,2,3; got '0,1'"),
        (("-n", "two"), "must be numbers of ranks with commas, such as 1,2,3; got 'two'"),
        (("--steps", "0"), "--steps must be at least 1; got 0"),
        (("--timeout", "0"), "--timeout must be positive; got 0"),
        ((), "the script must exist; got nowhere.py"),
    ],
)
def test_wrong_arguments_are_refused(arguments, said, capsys):
    from ddbp.commands import verify

    with pytest.raises(SystemExit) as ended:
        verify.run([*arguments, "nowhere.py" if not arguments else str(PROGRAM)])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
