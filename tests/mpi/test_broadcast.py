"""Initial parameters are those of rank 0 everywhere, which is checked."""

import re

from .ranks import PLAIN

SCRIPT = """
import sys
import numpy as np, ddbp, layers
from ddbp.reduction import replicate

rank = ddbp.communicator().rank
if {broken} and rank == 1:
    broadcast = replicate.broadcast

    def wrong(model, comm):
        broadcast(model, comm)
        model.weight.value[0, 0] += 1e-3

    replicate.broadcast = wrong
model = layers.Linear(3, 2, rng=np.random.default_rng(rank))
trainer = ddbp.Trainer(model, optimizer=ddbp.SGD(0.1), batch_size=4, quiet=True)
digests = trainer.comm.all_gather(np.frombuffer(trainer.parameters_sha256().encode(), np.uint8))
first = layers.Linear(3, 2, rng=np.random.default_rng(0))
if rank == 0:
    same = (model.weight.value == first.weight.value).all()
    print(len({{bytes(digest) for digest in digests}}), same)
"""


def run(start, tmp_path, environment, *, broken):
    for rank in range(3):
        (tmp_path / f"script{rank}.py").write_text(SCRIPT.format(broken=broken))
    return start(3, "own_script_per_rank.py", tmp_path, **environment)


def test_all_ranks_begin_with_the_parameters_of_the_first(pooled, tmp_path):
    for environment in ({}, PLAIN):
        finished = run(pooled, tmp_path, environment, broken=False)
        assert finished.status == 0, finished.err
        assert finished.out.split() == ["1", "True"]


def test_one_changed_number_of_one_rank_is_found(mpirun, tmp_path):
    finished = run(mpirun, tmp_path, PLAIN, broken=True)
    assert finished.status != 0
    assert re.search(
        r"all ranks must have the same initial parameters; got '\w{64}' on rank 1, '\w{64}' on"
        r" rank 0",
        finished.err,
    )
