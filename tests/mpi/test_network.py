"""The network between hosts is measured, and all ranks recommend the same exchange."""

import json

from .ranks import HALVES, ONE_HOST, PLAIN

SCRIPT = """
import json
from unittest import mock
import numpy as np, ddbp, layers
import ddbp.training.advice
from ddbp.comm.agreement import gather_texts

rng = np.random.default_rng(0)
data = ddbp.ArrayDataset(rng.standard_normal((2568, 4)), rng.standard_normal((2568, 2)))
model = layers.Sequential(layers.Linear(4, 300, rng=rng), layers.Linear(300, 2, rng=rng))
trainer = ddbp.Trainer(
    model, loss="mse", optimizer=ddbp.SGD(0.01), batch_size=8, shards=4, quiet=True, network="auto"
)
trainer.fit(data, epochs=1)
advice = trainer.advice
found = [advice.network, advice.compute, advice.way.arguments]
if advice.network is not None:
    # On a network that is slow enough.
    slow = advice.network._replace(latency=9.0, bandwidth=1e6)
    with mock.patch.object(ddbp.training.advice, "measured", lambda comm: slow):
        chosen = ddbp.Trainer(
            model, loss="mse", optimizer=ddbp.SGD(1e-4), batch_size=8, quiet=True, network=data
        )
    chosen.fit(data, epochs=1)
    found += [repr(chosen.options), chosen.parameters_sha256()]
told = gather_texts(trainer.comm, json.dumps(found))
if trainer.comm.rank == 0:
    print(json.dumps([*map(json.loads, told)]))
"""


def told(pooled, tmp_path, environment):
    """Return what each of four ranks has found."""
    for rank in range(4):
        (tmp_path / f"script{rank}.py").write_text(SCRIPT)
    finished = pooled(4, "own_script_per_rank.py", tmp_path, **environment)
    assert finished.status == 0, finished.err
    return json.loads(finished.out.splitlines()[-1])


def test_all_ranks_of_several_hosts_find_the_same(pooled, tmp_path):
    for environment, hosts in ((PLAIN, 4), (HALVES, 2)):
        first, *others = told(pooled, tmp_path, environment)
        assert others == [first] * 3
        (number, latency, bandwidth), compute, arguments, options, _ = first
        assert "DiLoCo(workers=4, every=32, outer_rate=1.0, outer_momentum=0.0" in options
        assert number == hosts
        assert 0 < latency < 10
        assert bandwidth > 0
        assert compute > 0
        assert arguments == "" or "=" in arguments


def test_ranks_of_one_host_find_no_network(pooled, tmp_path):
    for network, _, arguments in told(pooled, tmp_path, ONE_HOST):
        assert network is None
        assert arguments == ""
