"""Ranks that something happens to, or that do what they should not.

Usage: disturbed.py DEED FOLDER; every rank writes its process id.
"""

import atexit
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from launcher import await_files, await_watch
from numba.core import event

import ddbp
from ddbp.comm import deadlines
from layers import Linear, SoftmaxCrossEntropy

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 5)).astype(np.float32), RNG.integers(0, 3, 12)


def trainer():
    """Return a trainer of a small model."""
    model = Linear(5, 3, rng=np.random.default_rng(0))
    return ddbp.Trainer(
        model, loss=SoftmaxCrossEntropy(), optimizer=ddbp.SGD(0.1), batch_size=12, quiet=True
    )


def in_child(deed):
    """Return what a forked child says that does a deed and then ends as a script does."""
    receive, send = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(receive)
        atexit.unregister(last_words)
        try:
            said = repr(deed())
        except ddbp.CommunicationError as error:
            said = str(error)
        os.write(send, said.encode())
        sys.exit(0)
    os.close(send)
    os.waitpid(pid, 0)
    with open(receive) as pipe:
        return pipe.read()


def train_alone():
    """Return the number of ranks of a trainer that takes a step without MPI."""
    os.environ["DDBP_MPI"] = "0"
    alone = trainer()
    alone.train_step(X, Y)
    return alone.comm.size


def last_words():
    """Call MPI at the end of a script."""
    # In one piece: ranks print at the same time.
    sys.stdout.write(f"at the end: {ddbp.communicator().world.allreduce(1)}\n")
    sys.stdout.flush()


def forks() -> None:
    """Print what comes of training in children and in processes that a rank starts."""
    # Registered before MPI starts, and so run after ddbp has taken its leave.
    atexit.register(last_words)
    own = trainer()
    own.train_step(X, Y)
    if own.comm.rank == 0:
        print("the trainer:", in_child(lambda: own.train_step(X, Y)))
        print("a new trainer:", in_child(trainer))
        print("alone:", in_child(train_alone))
        command = [sys.executable, __file__, "train"]
        for variables in ({}, {"DDBP_MPI": "0"}):
            started = subprocess.run(
                command, env=os.environ | variables, capture_output=True, text=True, check=False
            )
            print(f"a script {variables}:", (started.stdout + started.stderr).splitlines()[-1])
    own.train_step(X, Y)
    print(f"rank {own.comm.rank} has gone on", flush=True)


@contextmanager
def saying_soon(deadline):
    """Return a context in which ranks soon say for whom they wait, and note in a file that they
    have: `saidRANK`, and `namedRANK` if that is rank 1 alone.
    """
    rank, folder = ddbp.communicator().rank, Path(sys.argv[2])
    tell, usual = deadline._tell_the_user, deadlines._SAY

    def tell_and_note(collective, absent, waited):
        tell(collective, absent, waited)
        (folder / f"said{rank}").touch()
        if absent == [1]:
            (folder / f"named{rank}").touch()

    deadlines._SAY, deadline._tell_the_user = 0.3, tell_and_note
    try:
        yield folder
    finally:
        deadlines._SAY, deadline._tell_the_user = usual, tell


def waits() -> None:
    """Have rank 1 come late: it compiles for longer than the others' time limit."""
    comm = ddbp.communicator()
    own, guilty = comm._deadline, comm.rank == 1
    limit = own._timeout
    compiling = event.trigger_event("numba:compile", data={}) if guilty else nullcontext()
    with compiling:
        # By now rank 1 has told that it compiles.
        comm.all_gather(np.zeros(1))
        own._timeout = 1.0
        with saying_soon(own) as folder:
            if comm.rank == 2:
                # The first that waits speaks.
                await_files(folder, "said0", 1)
            if guilty:
                await_files(folder, "named0", 1)
                # Longer than the limit, and than it takes until ranks speak.
                time.sleep(1.5)
            comm.all_gather(np.zeros(1))
    own._timeout = limit


def leave_without_a_word() -> None:
    """Have rank 1 wait in forward until the first rank has said so, and leave."""
    own = trainer()
    await_watch()
    own.train_step(X, Y)
    with saying_soon(own.comm._deadline) as folder:
        if own.comm.rank == 1:
            batch = own.batch(X, Y)
            own.model(batch.x)
            (folder / "forward1").touch()
            await_files(folder, "named0", 1)
            os._exit(0)
        await_files(folder, "forward1", 1)
        own.train_step(X, Y)


def ignore_signals() -> None:
    """Be there until killed."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    trainer()
    Path(sys.argv[2], f"ready{ddbp.communicator().rank}").touch()
    time.sleep(600)


def train() -> None:
    """Take a step."""
    own = trainer()
    own.train_step(X, Y)
    print("trained on", own.comm.size)


DEEDS = {
    "forks": forks,
    "waits": waits,
    "leave without a word": leave_without_a_word,
    "ignore signals": ignore_signals,
    "train": train,
}

if __name__ == "__main__":
    if len(sys.argv) > 2:
        rank = ddbp.communicator().rank
        Path(sys.argv[2], f"pid{rank}").write_text(str(os.getpid()))
    DEEDS[sys.argv[1]]()
