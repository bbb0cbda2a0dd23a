"""A run whose ranks are killed goes on in the processes that are left, to the bits of the run in
which none was.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ddbp.checkpoint import folder
from ddbp.checkpoint.folder import Checkpoint

from .ranks import differences, in_full

PROGRAM = "recovered.py"

# Which ranks are killed, in which step and where; of four the last one finishes alone.
EVERYWHERE = ("1:1:forward", "2:3:update:15000", "0:5:publish")
ELSEWHERE = ("3:1:backward", "0:3:exchange", "2:4:update")
LATE = ("2:2:end", "0:4:publish:30000", "1:6:beginning")
TOGETHER = ("0:3:update:20000", "2:3:publish")
WHILE_PLANNED = ("1:-1:after run", "3:3:forward", "0:3:before taken_by")
WHILE_MEASURED = ("0:-1:before measured", "1:12:end", "2:20:publish")
BESIDE = ("0:4:evaluation", "1:9:epoch end", "2:19:fit end")

RUNS = [
    ("dropout, Adam, a warm-up", 4, EVERYWHERE),
    ("batch norm, momentum", 4, ELSEWHERE),
    ("LAMB, one cycle", 4, TOGETHER),
    ("moments in 8 bits", 4, EVERYWHERE),
    ("best weights", 4, BESIDE),
    ("a doctor", 4, ("1:1:forward", "0:4:publish", "2:9:end")),
    ("weighted sentences without the last batch", 2, ("0:3:update",)),
    ("a loop in the midst of a group, synchronized", 4, EVERYWHERE),
    ("a loss that is scaled", 4, EVERYWHERE),
    ("the largest elements", 4, EVERYWHERE),
    ("difference target propagation", 4, EVERYWHERE),
    ("sentences of a source", 3, ("1:6:backward",)),
    ("single steps", 4, LATE),
    ("loops of all kinds", 6, EVERYWHERE),
    ("changed parameters", 4, ("0:9:end", "2:9:changed")),
    ("a memory budget", 4, WHILE_PLANNED),
    ("a network that is measured", 4, WHILE_MEASURED),
]
# Of kinds that are above, or among those of newcomers below.
MORE = [
    ("Adafactor", 4, ("0:3:update:20000", "2:3:publish")),
    ("a strict doctor", 3, ("1:2:end",)),
    ("a doctor from then on", 4, ("1:1:forward", "0:4:publish", "2:8:end")),
    ("a loop in bfloat16 in the midst of a group", 4, ELSEWHERE),
    ("products of low rank", 4, ("1:1:publish", "0:4:update:20000", "2:9:end")),
    ("sums of 8 bits", 4, ELSEWHERE),
    ("a source, accumulated", 4, EVERYWHERE),
    ("steps by their number by hand", 4, EVERYWHERE),
    ("dropout, Adam, a warm-up", 3, BESIDE[:2]),
    ("a moving average", 4, LATE),
    ("groups", 3, EVERYWHERE[:2]),
    ("dropout, Adam, a warm-up", 6, ELSEWHERE),
    ("batch norm, momentum", 6, TOGETHER),
    ("LAMB, one cycle", 6, EVERYWHERE),
    ("Muon, a rate by epoch", 4, EVERYWHERE),
    ("Muon, a rate by epoch", 4, TOGETHER),
    ("a plateau", 4, BESIDE),
    ("direct feedback, batch norm", 4, ELSEWHERE),
    ("forward-forward", 3, BESIDE[:2]),
    ("meProp of batches, accumulated", 4, TOGETHER),
    ("parameter groups", 4, ELSEWHERE),
    ("early stopping", 4, (*BESIDE[:2], "2:12:update")),
    ("frozen layers", 4, EVERYWHERE),
    ("a second fit", 4, LATE),
    ("a memory budget", 4, EVERYWHERE),
    ("a memory budget", 6, (*TOGETHER, "1:-1:before taken_by", "4:10:beginning")),
    ("a network that is chosen by", 4, WHILE_MEASURED),
    ("a loop", 4, LATE),
    ("a loop over frozen layers in the midst of a group", 4, EVERYWHERE),
    ("a loop in the midst of a group", 4, ELSEWHERE),
    ("the largest elements", 4, TOGETHER),
    ("products of low rank", 4, ELSEWHERE),
    ("signs", 4, LATE),
    ("a source, accumulated", 6, TOGETHER),
    ("a generator", 4, EVERYWHERE),
    ("single steps", 6, TOGETHER),
    ("loops of all kinds", 4, ELSEWHERE),
]


@pytest.fixture(scope="module")
def undisturbed(run_alone):
    """Return what all runs give if nobody is killed."""
    return run_alone(PROGRAM, "all")


@pytest.fixture
def survive(run_python, tmp_path):
    """Return the function that trains a network on ranks of which some are killed; it returns how
    the job ended and what each slot wrote.
    """

    def run(run, ranks, kills, *options, launch=()):
        program = Path(__file__).parent / "programs" / PROGRAM
        command = ("-m", "ddbp", "launch", "--survive", "-n", ranks, *launch, program)
        ended = run_python(*command, tmp_path, run, *kills, *options)
        told = re.findall(r"^doctor: (\w+)", ended.err, re.M)
        assert told == ["linear_twice"] * run.startswith("a doctor")
        found = {path.stem: dict(np.load(path)) for path in tmp_path.glob("rank*.npz")}
        return ended, found

    return run


def same(run, found, undisturbed):
    """Return whether ranks have the parameters and the losses of the undisturbed run."""
    names = [f"{run}: digest", f"{run}: losses"]
    return [
        [each[name].tobytes() == undisturbed[name].tobytes() for name in names]
        for each in found.values()
    ]


def told(run, found):
    """Return what ranks say that they have found out together."""
    return {each[f"{run}: found out"].item() for each in found.values()}


@pytest.mark.parametrize(("run", "ranks", "kills"), [*RUNS, *in_full(*MORE)])
def test_ranks_that_are_left_finish_to_the_same_bits(run, ranks, kills, survive, undisturbed):
    ended, found = survive(run, ranks, kills, launch=("--no-replace",))
    assert ended.status == 0, ended.err
    assert len(re.findall("died .*: killed by SIGKILL", ended.err)) == len(kills)
    assert same(run, found, undisturbed) == [[True, True]] * (ranks - len(kills))
    assert len(told(run, found)) == 1


def test_what_instruments_have_measured_outlives_the_rank_that_writes_it(survive, run_alone):
    run, kills = "a doctor", ("0:4:forward", "1:7:backward")
    ended, found = survive(run, 3, kills, "--record", launch=("--no-replace",))
    assert ended.status == 0, ended.err
    undisturbed = run_alone(PROGRAM, run, "--record")
    assert undisturbed["steps"].tolist() == [*range(len(undisturbed["steps"]))]
    assert differences(found["rank2"], undisturbed) == []


def test_update_that_nobody_finishes_is_seen_in_the_bits(survive, undisturbed):
    run = "a loop"
    kills = ("1:3:update",)
    ended, found = survive(run, 3, kills, "--unfinished", launch=("--no-replace",))
    assert ended.status == 0, ended.err
    assert same(run, found, undisturbed) == [[False, False]] * 2


NEW = [
    ("products of low rank", "0:7:publish:10000", 8),
    ("dropout, Adam, a warm-up", "0:2:publish:10000", 3),
    ("a second fit", "0:7:publish:10000", 8),
    ("steps by their number", "1:3:update", 4),
    ("a memory budget", "0:2:publish:10000", 3),
    ("a network that is measured", "1:14:publish", 15),
]
MORE_NEW = [
    ("a memory budget", "1:-1:after run", 1),
    ("a network that is measured", "0:2:publish:10000", 3),
    ("a network that is chosen by", "1:14:publish", 15),
    ("difference target propagation", "0:2:publish:10000", 3),
    ("steps by their number by hand", "1:3:forward", 4),
    ("best weights", "0:2:publish:10000", 3),
    ("a moving average", "0:2:publish:10000", 3),
    ("a loop", "0:2:publish:10000", 3),
]


@pytest.mark.parametrize(("run", "kill", "waiting"), [*NEW, *in_full(*MORE_NEW)])
def test_newcomer_takes_the_place_of_a_killed_rank(run, kill, waiting, survive, undisturbed):
    ended, found = survive(run, 3, (kill,), "--joined", waiting, 3)
    assert ended.status == 0, ended.err
    assert len(found) == 3
    assert "rank3" in found
    assert [each[f"{run}: ranks"].item() for each in found.values()] == [3] * 3
    digests = {each[f"{run}: digest"].item() for each in found.values()}
    assert digests == {undisturbed[f"{run}: digest"].item()}
    assert len(told(run, found)) == 1


@pytest.mark.parametrize(("slot", "step", "place"), [(0, 6, "forward"), (2, 6, "publish")])
def test_checkpoints_and_the_run_folder_go_on_without_a_killed_rank(
    slot, step, place, survive, undisturbed, tmp_path
):
    run = "dropout, Adam, a warm-up"
    ended, found = survive(run, 3, (f"{slot}:{step}:{place}",), "--save", launch=("--no-replace",))
    assert ended.status == 0, ended.err
    assert same(run, found, undisturbed) == [[True, True]] * 2
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    assert (tmp_path / "run" / "model.safetensors").exists()
    whole = [Checkpoint(path) for path in folder.found(tmp_path / "run" / "checkpoints")]
    assert [checkpoint.step for checkpoint in whole] == [16, 18, 20]
    assert [checkpoint.damages() for checkpoint in whole] == [[]] * 3
    assert list((tmp_path / "run" / "checkpoints").glob(".*")) == []


def all_at(place, ranks=3):
    """Return the kills of all ranks there."""
    return tuple(f"{slot}:{place}" for slot in range(ranks))


# Where no rank is left, or none can go on, new ones take over. Losses of a loop are the script's.
TAKEN_OVER = [
    ("dropout, Adam, a warm-up", all_at("9:forward"), True),
    ("a second fit", all_at("12:update:20000"), True),
    ("windows", ("1:9:forward",), True),
    ("steps by their number", all_at("6:publish"), False),
]
MORE_TAKEN_OVER = [
    ("batch norm, momentum", all_at("7:update:20000"), True),
    ("best weights", ("0:14:evaluation", "1:15:publish", "2:15:publish"), True),
    ("a moving average", all_at("14:end"), True),
    ("changed parameters", ("0:9:change",), True),
    ("LAMB, one cycle", all_at("8:publish:10000"), True),
    ("early stopping", all_at("9:epoch end"), True),
    ("frozen layers", all_at("11:beginning"), True),
    ("groups", all_at("6:update"), True),
    ("a loop", all_at("3:end"), False),
    ("a loop in the midst of a group", all_at("5:backward"), False),
    ("a memory budget", all_at("9:forward"), True),
    ("a network that is chosen by", all_at("9:forward"), True),
]


@pytest.mark.parametrize(("run", "kills", "kept"), [*TAKEN_OVER, *in_full(*MORE_TAKEN_OVER)])
def test_new_ranks_take_over_from_memory_where_none_can_go_on(
    run, kills, kept, survive, undisturbed
):
    # The state of the last step before, not one of some time ago.
    ended, found = survive(run, 3, kills, "--keep")
    assert ended.status == 0, ended.err
    assert len(re.findall("none is left: .* take over", ended.err)) == 1
    assert [same_run[: 1 + kept] for same_run in same(run, found, undisturbed)] == [
        [True, True][: 1 + kept]
    ] * 3


@pytest.mark.parametrize("run", ["dropout, Adam, a warm-up", "a doctor"])
def test_ranks_that_take_over_go_on_with_checkpoints_and_the_run_folder(
    run, survive, undisturbed, tmp_path
):
    ended, found = survive(run, 3, all_at("9:forward"), "--save")
    assert ended.status == 0, ended.err
    assert same(run, found, undisturbed) == [[True, True]] * 3
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    whole = [Checkpoint(path) for path in folder.found(tmp_path / "run" / "checkpoints")]
    assert [checkpoint.damages() for checkpoint in whole] == [[]] * 3


@pytest.mark.parametrize(
    ("kills", "launch"),
    [(all_at("9:forward"), ("--no-replace",)), (all_at("0:forward"), ())],
    ids=["nothing is kept", "before the first step is over"],
)
def test_job_of_which_neither_ranks_nor_memory_is_left_begins_again_from_its_checkpoint(
    kills, launch, survive, undisturbed
):
    run = "dropout, Adam, a warm-up"
    ended, found = survive(run, 3, kills, "--save", launch=("--max-restarts", 1, *launch))
    assert ended.status == 0, ended.err
    assert "begins again on 3 ranks" in ended.err
    assert same(run, found, undisturbed) == [[True, True]] * 3


def test_shard_in_which_two_ranks_have_died_ends_the_job(survive):
    ended, found = survive("dropout, Adam, a warm-up", 4, (), "--deadly", 7, 3)
    assert ended.status not in (0, None)
    assert found == {}
    assert "a rank must live through the shards of step 7 that another one died in" in ended.err


@pytest.mark.parametrize(
    ("run", "why"),
    [
        ("windows", "one with truncate=, which needs the states that the killed rank carried"),
        ("batches of the script", "one on a batch of Trainer.batch"),
    ],
)
def test_run_that_cannot_take_a_step_again_ends_with_what_helps(run, why, survive):
    ended, found = survive(run, 3, ("1:3:forward",), launch=("--no-replace",))
    assert ended.status not in (0, None)
    assert found == {}
    assert why in ended.err
    assert "All ranks begin again, from memory, or with --max-restarts" in ended.err
