"""Fit with progress and a run folder, then predict on rank 0 alone. Usage: fit_with_run_folder.py
FOLDER.
"""

import sys

import numpy as np
from verdict import assert_on_all_ranks

import ddbp
from layers import Linear, SoftmaxCrossEntropy

RNG = np.random.default_rng(0)
DATA = ddbp.ArrayDataset(RNG.standard_normal((40, 5)), RNG.integers(0, 3, 40))

model = Linear(5, 3, rng=np.random.default_rng(0))
trainer = ddbp.Trainer(
    model, loss=SoftmaxCrossEntropy(), optimizer=ddbp.Adam(0.01), batch_size=16, run_dir=sys.argv[1]
)
history = trainer.fit(DATA, epochs=2, validation=DATA)
assert_on_all_ranks(len(history) == 2, "every rank has the history")
if trainer.comm.rank == 0:
    print(trainer.predict(DATA.x).shape)
