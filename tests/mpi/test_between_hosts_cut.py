"""What becomes of ranks that survive each other on two hosts, which are network namespaces, when
ranks, a host or the link between them goes: each case ends in the bits of the undisturbed run, or
soon and with an error that says what was missing.
"""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from .ranks import in_full

PROGRAMS = Path(__file__).parent / "programs"
PROGRAM, RUN = "recovered.py", "dropout, Adam, a warm-up"
TIMEOUT = 10
# Ranks 0 and 1 are on the first host, 2 and 3 on the other one. A launcher that waits for a host
# that it cannot reach is given little time.
LAUNCH = """
import sys
from ddbp.commands import end_signals, launch
launch.find_mpiexec = lambda: sys.argv[1]
end_signals.GRACE = 5.0
sys.exit(launch.run(["--survive", "--hosts", "10.77.0.1:2,10.77.0.2:2", *sys.argv[2:]]))
"""


@pytest.fixture
def between_hosts(open_mpi, run_python, tmp_path):
    """Return the function that trains on four ranks of two hosts, and returns how that ended, with
    the digest and the losses of each rank that has come to its end.
    """
    missing = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {' '.join(missing)}")
    separate = ["unshare", "--net", "--uts", "--mount"]
    link = [*separate, "ip", "link", "add", "first", "type", "veth"]
    allowed = subprocess.run(link, capture_output=True, text=True, check=False)
    if allowed.returncode:
        pytest.skip(f"needs the right to make network namespaces: {allowed.stderr.strip()}")

    def run(*kills, options=(), program_options=(), limit=TIMEOUT):
        program = [PROGRAMS / PROGRAM, tmp_path, RUN, *kills, *program_options]
        command = [shutil.which("python"), "-c", LAUNCH, open_mpi.mpirun, *options, *program]
        code = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
        hosts = [*separate, "sh", PROGRAMS / "namespaces.sh", "-", tmp_path]
        environment = {**open_mpi.environment, "DDBP_TIMEOUT": str(limit)}
        for _ in range(3):
            ended = run_python("-c", code, *hosts, *command, **environment)
            # On busy cores the launcher may not reach its own daemon, and has started nothing then.
            if "A daemon failed to report back" not in ended.out:
                break
        found = [dict(np.load(path)) for path in sorted(tmp_path.glob("rank*.npz"))]
        names = (f"{RUN}: digest", f"{RUN}: losses")
        return ended, [[each[name].tobytes() for name in names] for each in found]

    return run


@pytest.fixture
def undisturbed(run_alone):
    """Return digest and losses of the run that nobody disturbs."""
    found = run_alone(PROGRAM, RUN)
    return [found[f"{RUN}: {name}"].tobytes() for name in ("digest", "losses")]


@pytest.mark.parametrize(
    ("kills", "left"),
    [
        (("2:3:update", "3:3:update"), 2),
        *in_full(
            (("0:3:publish",), 3),
            (("0:3:forward:cut 2",), 4),
            (("0:3:forward:lose 2",), 4),
            (("2:3:exchange", "0:3:before agreed"), 2),
            (("2:3:update", "3:3:before catch_up"), 2),
            (("2:3:exchange", "3:3:after regroup"), 2),
        ),
    ],
)
def test_ranks_that_are_left_finish_to_the_same_bits(kills, left, between_hosts, undisturbed):
    # Far longer than it takes the link to heal, on busy cores too.
    ended, found = between_hosts(*kills, limit=60)
    assert ended.status == 0, ended.err
    assert found == [undisturbed] * left, ended.err
    assert len(re.findall(r"rank \d .* died .*: killed by SIGKILL", ended.err)) == 4 - left


# The ranks that are left would go on to the end, if the launcher took so long to end the job.
AFTER = "0:{}:beginning:sleep 50"


def test_host_that_is_lost_with_its_daemon_ends_the_job(between_hosts):
    ended, found = between_hosts("2:3:update:daemon", AFTER.format(4), limit=60)
    assert (ended.status, found) == (1, [])
    assert "ddbp launch: no rank has come to its end: the launcher has ended the job" in ended.err


@pytest.mark.full
def test_job_begins_again_from_its_checkpoint_when_a_host_was_lost(between_hosts, undisturbed):
    options = ("--max-restarts", 1)
    kills = "2:9:update:daemon", AFTER.format(10)
    ended, found = between_hosts(*kills, options=options, program_options=("--save",), limit=60)
    assert ended.status == 0, ended.err
    assert "ddbp launch: begins again on 4 ranks in 0 s" in ended.err
    assert found == [undisturbed] * 4


MISSED = r"all ranks must take part in .* got nothing from rank {}(, .)? for \d+ s"
"""What ranks miss in an exchange, where they wait until it is too long."""
ALONE = r"the ranks that are left must come together; got no answer for \d+ s. .* link to a host"
"""What recovery misses, where the launcher's daemons have missed each other before that, by the
heartbeats that come every few seconds.
"""


@pytest.mark.full
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", f"rank [01]: ({MISSED.format('[23]')}|{ALONE})"),
        # What the second host sends arrives, its ranks' errors, too. Those of the first have got
        # something of it by then, and wait anew: any of all may be the first to give up.
        ("lose", f"rank ([01]: {MISSED.format('[23]')}|[23]: {MISSED.format('[01]')}|.: {ALONE})"),
    ],
)
def test_link_that_does_not_heal_ends_the_job_with_what_is_missing(how, said, between_hosts):
    # It takes a while to cut it: so that the first host is the one that has waited for longest.
    later = ("2:3:forward:sleep 5", "3:3:forward:sleep 5")
    ended, found = between_hosts(f"0:3:forward:{how} 150", *later)
    assert (ended.status, found) == (1, [])
    assert re.search(said, ended.err), ended.err
    killed = "the launcher was killed: it had not ended 5 s after the error of a rank"
    assert killed in ended.err, ended.err


@pytest.mark.full
@pytest.mark.parametrize(
    "kills",
    [
        ("2:3:update:stop",),
        ("2:3:update", "3:3:before catch_up:stop"),
        ("2:3:exchange", "0:3:before recover:cut 150"),
        ("2:3:exchange", "0:3:before catch_up:lose 150"),
    ],
)
def test_rank_that_cannot_be_reached_ends_the_job(kills, between_hosts):
    ended, found = between_hosts(*kills)
    assert ended.status != 0
    assert found == [], ended.err
    assert re.search(r"rank .: .* for \d\d+ s", ended.err), ended.err
