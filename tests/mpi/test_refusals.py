"""What ranks refuse alike, before it costs anything: too many ranks, and whatever is not the same
on all of them.
"""

import json
import re

import pytest

ALL_SAME = "CommunicationError: ddbp: all ranks must have the same"
START = "Start all ranks with the same script, options and installation."
DATA = "Every rank loads the whole data set, in the same order; the trainer takes each rank's part."
SAID = {
    "batch smaller than ranks": (
        "ValueError: Trainer: every rank needs a sample of each global batch; got batch_size 2 on 3"
        " ranks. Start at most 2 ranks, or raise batch_size."
    ),
    "fewer shards than ranks": (
        "ValueError: Trainer: shards=2 allows at most 2 ranks; got 3. Start at most 2 ranks, or"
        " raise shards."
    ),
    "parameters": (
        rf"{ALL_SAME} parameters; got the first that differs: layers\.0\.weight \(9, 5\) float32 on"
        r" rank 1, "
        rf"layers\.0\.weight \(8, 5\) float32 on rank 0\. {START}"
    ),
    "number of parameters": (
        rf"{ALL_SAME} parameters; got 6 on rank 1, 4 on rank 0; the first that differs: "
        rf"layers\.1\.weight \(3, 3\) float32 on rank 1, none on rank 0\. {START}"
    ),
    "last parameters": (
        rf"{ALL_SAME} parameters; got 3 on rank 1, 4 on rank 0; the first that differs: none on"
        r" rank 1, "
        rf"layers\.3\.bias \(3,\) float32 on rank 0\. {START}"
    ),
    "type": (
        rf"{ALL_SAME} parameters; got the first that differs: layers\.0\.weight \(8, 5\) float64 on"
        r" rank 1, "
        rf"layers\.0\.weight \(8, 5\) float32 on rank 0\. {START}"
    ),
    "model": (
        rf"{ALL_SAME} model; got .*Dropout\(0.25\).* on rank 1, .*Dropout\(0.5\).* on rank 0."
        rf" {START}"
    ),
    "deep model": (
        rf"{ALL_SAME} model; got \.\.\.'.{{20,40}}Dropout\(0\.25\).{{0,40}}'\.\.\. on rank 1, "
        rf"\.\.\.'.{{20,40}}Dropout\(0\.125\).{{0,40}}'\.\.\. on rank 0\. {START}"
    ),
    "loss": (
        rf"{ALL_SAME} loss; got .*label_smoothing=0.125.* on rank 1, 'SoftmaxCrossEntropy\(\)' on"
        rf" rank 0. {START}"
    ),
    "optimizer": (
        rf"{ALL_SAME} optimizer; got 'SGD\(0.25, .*\)' on rank 1, 'SGD\(0.125, .*\)' on rank 0."
        rf" {START}"
    ),
    "kind of optimizer": (
        rf"{ALL_SAME} optimizer; got 'Adam\(.*\)' on rank 1, 'SGD\(.*\)' on rank 0. {START}"
    ),
    "batch_size": f"{ALL_SAME} batch_size; got '10' on rank 1, '12' on rank 0. {START}",
    "seed": f"{ALL_SAME} seed; got '5' on rank 1, '0' on rank 0. {START}",
    "shards": f"{ALL_SAME} shards; got '6' on rank 1, '3' on rank 0. {START}",
    "metrics": (
        rf"{ALL_SAME} metrics; got 0 on rank 1, 1 on rank 0; the first that differs: none on rank"
        rf" 1, accuracy: accuracy on rank 0. {START}"
    ),
    "callbacks": (
        rf"{ALL_SAME} callbacks; got the first that differs: BestWeights\(.+\) on"
        rf" rank 1, EarlyStopping\(.+\) on rank 0. {START}"
    ),
    "options of callbacks": (
        rf"{ALL_SAME} callbacks; got the first that differs: EarlyStopping\(patience=2, .+\) on"
        rf" rank 1, EarlyStopping\(patience=1, .+\) on rank 0. {START}"
    ),
    "callback with and without data": (
        rf"{ALL_SAME} callbacks; got .+ validation=None\) on rank 1, .+"
        rf" validation=ArrayDataset\(.+\)\) on rank 0. {START}"
    ),
    "frozen parameters": (
        rf"{ALL_SAME} parameters; got the first that differs: layers\.0\.bias \(8,\) float32 frozen"
        rf" on rank 1, layers\.0\.bias \(8,\) float32 on rank 0. {START}"
    ),
    "parameter groups": (
        rf"{ALL_SAME} optimizer; got .*0\.5.* on rank 1, .*0\.25.* on rank 0. {START}"
    ),
    "clip_norm": (rf"{ALL_SAME} clip_norm; got '1.0' on rank 1, 'None' on rank 0. {START}"),
    "precision": f"{ALL_SAME} precision; got 'bf16' on rank 1, 'float32' on rank 0. {START}",
    "precision of float64": (
        "ValueError: set_precision: bf16 takes a float32 model; got float64 in layers.0.weight."
        " Make it with dtype=np.float32."
    ),
    "loss_scale": (
        rf"{ALL_SAME} loss_scale; got .*initial=4.0.* on rank 1, .*initial=8.0.* on rank 0. {START}"
    ),
    "overflow at every scale": (
        r"NotFiniteError: Trainer: the gradient must be finite; got NaN or inf in step 0 at every"
        r" loss scale down to 1: on rank 2 for .+; the first layer whose gradient is not finite is"
        r" layers.1: Overflows.+"
    ),
    "training x": (
        rf"{ALL_SAME} training data; got '\(30, 5\) .*' on rank 1, '\(30, 5\) .*' on rank 0. {DATA}"
    ),
    "training labels": (
        rf"{ALL_SAME} training data; got '\(30, 5\) .*' on rank 1, '\(30, 5\) .*' on rank 0. {DATA}"
    ),
    "training weights": rf"{ALL_SAME} training data; got .*weights \(30,\) .*{DATA}",
    "class weights": rf"{ALL_SAME} training data; got .*weights \(30,\) .*{DATA}",
    "ragged lengths": rf"{ALL_SAME} training data; got .*{DATA}",
    "several inputs": rf"{ALL_SAME} training data; got .*x\[1\] \(30, 5\).*{DATA}",
    "drop_last": f"{ALL_SAME} drop_last; got 'True' on rank 1, 'False' on rank 0. {START}",
    "single values": (
        r"ValueError: Trainer.fit: BatchNorm needs more than one value .*; got a last batch of 1 in"
        r" 3 shards. Pass drop_last=True, .+"
    ),
    "training length": (
        rf"{ALL_SAME} training data; got '\(29, 5\) .*' on rank 1, '\(30, 5\) .*' on rank 0. {DATA}"
    ),
    "validation": (
        rf"{ALL_SAME} validation data; got '\(30, 5\) .*' on rank 1, '\(30, 5\) .*' on rank 0."
        rf" {DATA}"
    ),
    "batches": rf"{ALL_SAME} data; got '\(30, 5\) .*' on rank 1, '\(30, 5\) .*' on rank 0. {DATA}",
    "batches of a second data set": (
        rf"{ALL_SAME} data; got '\(30, 5\) .*' on rank 1, '\(30, 5\) .*' on rank 0. {DATA}"
    ),
    "evaluated data": (
        rf"{ALL_SAME} data; got '\(30, 5\) .*' on rank 1, '\(30, 5\) .*' on rank 0. {DATA}"
    ),
    "data used again": "nothing",
    "number of epochs": f"{ALL_SAME} epochs; got '2' on rank 1, '1' on rank 0. .+",
    "metric": (
        r"ValueError: Trainer.evaluate: metric 'mine' must return a number for each of the 4"
        r" samples, \(4,\); got shape \(4, 3\) of float32. .+"
    ),
    "loss of one rank": (
        r"ValueError: Trainer: on several shards a loss must be .+; got call \d+: Power\(\). .+"
    ),
    "mean of one rank within a loss": (
        r"ValueError: Trainer: what was averaged over the batch must only be added up and"
        r" multiplied by numbers, .+; got other uses of call \d+: Mean\(axis=0\). .+"
    ),
    "mean of all ranks": "nothing",
    "layer in the first pass": "ValueError: Refuses: nothing comes back",
    "divergence": (
        r"NotFiniteError: Trainer: the loss must be finite; got (nan|inf) in step \d(; |: on rank"
        r" \d )the first layer whose output is not finite is .*(Linear|MeanSquaredError)\(.*\), in"
        r" samples \d+, .+ of the data.*\. Lower the learning rate, .+"
    ),
    "state": rf"{ALL_SAME} state to load; got '\w+' on rank 1, '\w+' on rank 0\. .+",
    "monitor that differs between ranks": "nothing",
    "own schedule and function": "nothing",
}


@pytest.fixture(scope="module")
def collected(mpirun, tmp_path_factory):
    """Return the finished process, and the messages of every rank."""
    folder = tmp_path_factory.mktemp("errors")
    finished = mpirun(3, "errors_on_all_ranks.py", folder)
    return finished, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(3)]


def test_every_case_of_the_program_is_looked_at(collected):
    assert collected[1][0].keys() == SAID.keys()


@pytest.mark.parametrize("case", SAID)
def test_every_rank_says_what_differs_with_both_values(case, collected):
    for said in collected[1]:
        assert re.fullmatch(SAID[case], said[case]), said[case]


def test_refusal_ends_all_ranks_with_a_bad_status(collected):
    finished, _ = collected
    assert finished.status != 0
    assert "all ranks must have the same seed; got '1' on rank 1, '0' on rank 0" in finished.err


def test_unequal_scripts_are_refused(mpirun, tmp_path):
    script = """
import numpy as np, ddbp, layers
model = layers.Linear(2, 2, rng=np.random.default_rng(0))
ddbp.Trainer(model, optimizer=ddbp.SGD(0.1), batch_size=4, quiet=True)
"""
    for rank in range(2):
        (tmp_path / f"script{rank}.py").write_text(
            script + "# an edit that did not reach the other host\n" * rank
        )
    finished = mpirun(2, "own_script_per_rank.py", tmp_path)
    assert finished.status != 0
    assert re.search(
        r"all ranks must have the same script; got '\w{16}' on rank 1, '\w{16}' on rank 0",
        finished.err,
    )


def test_equal_copies_of_the_script_are_accepted(pooled, tmp_path):
    script = (
        "import numpy as np, ddbp, layers\nddbp.Trainer(layers.Linear(2, 2,"
        " rng=np.random.default_rng(0)), "
    )
    for rank in range(2):
        (tmp_path / f"script{rank}.py").write_text(
            script + "optimizer=ddbp.SGD(0.1), batch_size=4, quiet=True)\n"
        )
    finished = pooled(2, "own_script_per_rank.py", tmp_path)
    assert finished.status == 0, finished.err
