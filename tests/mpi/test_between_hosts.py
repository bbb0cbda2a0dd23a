"""Ranks of several hosts go on when some are killed, or all of a host, to the bits of the run in
which none was: by Open MPI, whose communicators can be mended.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

from ddbp.commands import launch

from .ranks import in_full

PROGRAM = "recovered.py"
# Hosts of two ranks each, on one machine.
HOSTS = {"DDBP_SURVIVE": "mpi", "DDBP_RANKS_OF_HOST": "2"}
ADAM, BATCH_NORM = "dropout, Adam, a warm-up", "batch norm, momentum"
# Which rank is killed, in which step and where. In "dropout, Adam, a warm-up" the norm of the
# gradient is limited.
RUNS = [
    (ADAM, 4, ("1:1:forward", "2:3:update:15000", "0:5:publish")),
    (BATCH_NORM, 4, ("3:1:backward", "0:3:exchange", "2:4:update")),
    ("LAMB, one cycle", 6, ("0:3:update:20000", "1:3:update:20000", "4:5:publish")),
]
# Others die while ranks recover: when they stop, in Shrink, before and after all have agreed on
# who is left and what each host has, and when they go on. Steps 3 and 5 begin with six and four.
AGAIN = [
    ("before stop", "before recover"),
    ("before catch_up", "after agreed"),
    ("after catch_up", "before regroup"),
    ("after regroup", "before recover:500000"),
]
MORE = [
    *(
        (ADAM, 6, ("5:3:exchange", f"0:3:{first}", "4:5:exchange", f"1:5:{second}"))
        for first, second in AGAIN
    ),
    (ADAM, 6, ("4:3:exchange", "5:3:exchange", "0:3:before catch_up")),
    (ADAM, 6, ("2:2:exchange", "3:2:exchange:30000")),
    (ADAM, 6, ("4:4:publish", "5:4:publish", "0:4:publish:3000000")),
    (ADAM, 4, ("0:4:evaluation", "3:9:end")),
    (BATCH_NORM, 6, ("0:2:forward", "1:2:forward", "2:6:update", "3:6:update:100000")),
    ("Muon, a rate by epoch", 4, ("3:2:update:50000", "1:5:update")),
    ("moments in 8 bits", 4, ("0:2:update:15000", "3:5:publish")),
    ("Adafactor", 4, ("1:2:update:15000", "2:5:publish")),
    ("groups", 4, ("1:1:exchange", "2:2:update")),
    ("single steps", 4, ("2:2:end", "0:4:publish:30000", "1:6:beginning")),
    ("loops of all kinds", 4, ("3:1:backward", "0:3:exchange", "2:4:update")),
    ("a memory budget", 6, ("1:-1:after run", "2:3:exchange", "4:3:before taken_by")),
    ("a network that is measured", 6, ("2:-1:before measured", "1:12:end", "5:20:publish")),
    ("a network that is chosen by", 6, ("0:-1:before measured", "3:12:end")),
]


def of(result, name):
    """Return what a rank has written under a name, whatever run it is of."""
    return next(array for key, array in result.items() if key.endswith(name))


@pytest.mark.parametrize(("run", "ranks", "kills"), [*RUNS, *in_full(*MORE)])
def test_ranks_that_are_left_finish_to_the_same_bits(
    run, ranks, kills, on_open_mpi, run_alone, tmp_path
):
    expected = run_alone(PROGRAM, run)
    options = launch.SURVIVING
    ended = on_open_mpi(ranks, PROGRAM, tmp_path, run, *kills, options=options, **HOSTS)
    assert ended.status == 0, ended.err
    found = [dict(np.load(path)) for path in sorted(tmp_path.glob("rank*.npz"))]
    assert len(found) == ranks - len(kills)
    for result in found:
        for name in ("digest", "losses"):
            assert of(result, name).tobytes() == of(expected, name).tobytes()


def test_host_that_is_behind_gets_the_results_of_another_before_all_learn_of_the_loss(
    on_open_mpi, tmp_path
):
    ended = on_open_mpi(4, "joints.py", tmp_path, options=launch.SURVIVING, **HOSTS)
    assert ended.status == 0, ended.err
    found = [dict(np.load(path)) for path in sorted(tmp_path.glob("rank*.npz"))]
    assert len(found) == 3
    for result in found:
        assert result["total"].tolist() == [3, 3, 3]
        assert result["numbers"].tolist() == [2, 2, 2]
        assert result["lost"].tolist() == [[2], [2]]
        assert result["hosts"].tolist() == [0, 2, 3]


def test_launch_has_ranks_of_hosts_survive(open_mpi, run_python, run_alone, tmp_path):
    expected = run_alone(PROGRAM, ADAM)
    program = Path(__file__).parent / "programs" / PROGRAM
    code = (
        "import sys; from ddbp.commands import launch;"
        "launch.find_mpiexec = lambda: sys.argv[1]; sys.exit(launch.run(sys.argv[2:]))"
    )
    command = ["--survive", "--hosts", "localhost:4", program, tmp_path, ADAM, "1:3:update:15000"]
    environment = {**open_mpi.environment, "DDBP_RANKS_OF_HOST": "2"}
    ended = run_python("-c", code, open_mpi.mpirun, *command, **environment)
    assert ended.status == 0, ended.err
    assert "rank 1 " in ended.err
    found = [dict(np.load(path)) for path in sorted(tmp_path.glob("rank*.npz"))]
    assert len(found) == 3
    assert {of(each, "digest").tobytes() for each in found} == {of(expected, "digest").tobytes()}


def test_launch_says_what_hosts_take(tmp_path, capsys, monkeypatch):
    script = tmp_path / "train.py"
    script.touch()
    monkeypatch.setattr(launch, "find_mpiexec", lambda: sys.executable)
    assert launch.run(["--survive", "--hosts", "a:2,b:2", str(script)]) == 1
    assert "takes the mpirun of Open MPI" in capsys.readouterr().err
    for arguments in (["--hosts", "a:2"], ["--survive", "--hosts", "a"]):
        with pytest.raises(SystemExit):
            launch.run([*arguments, str(script)])
