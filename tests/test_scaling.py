"""The equations of the model of scale, against numbers worked out by hand and against what the
reduction really sends.
"""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ddbp.comm.base import CollectiveKind
from ddbp.comm.topology import Topology
from ddbp.reduction.reducer import Reducer
from ddbp.reduction.shards import ShardPlan, cut
from layers import Layer, Parameter
from layers.kernels import reduce

BENCH = Path(__file__).parents[1] / "scripts" / "bench" / "lib"


def _load(name):
    specification = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


scaling = _load("scaling")

MACHINE = scaling.Machine(
    cores=4,
    meeting=2e-6,
    peer=1e-7,
    switch={1.0: 0.0, 2.0: 1e-4},
    stream=400e9,
    reduction={1e5: 80e9, 1e8: 20e9},
)
NETWORK = scaling.Network("a network", latency=1e-5, bandwidth=1e9, overhead=1e-6)
COMPUTE = {1.0: 1e-3, 32.0: 9e-3, 64.0: 16e-3}
WORK = scaling.Work(1_000_000, COMPUTE, update=2e-3, overhead=1e-4, alone={64.0: 18e-3}, skew=0.01)


def place(ranks, hosts=1, machines=None):
    return scaling.Placement(ranks, hosts, machines or hosts)


def total(*arguments):
    return sum(scaling.step(*arguments).values())


def test_values_between_measured_ones_lie_on_a_line_and_beyond_them_are_the_nearest():
    assert scaling.between(48, COMPUTE) == pytest.approx(12.5e-3)
    assert scaling.between(0.1, COMPUTE) == 1e-3
    assert scaling.between(64, COMPUTE) == 16e-3
    assert scaling.between(1e9, COMPUTE) == 16e-3


def test_a_batch_beyond_the_largest_takes_time_in_proportion():
    assert scaling.batch_seconds(128, COMPUTE) == pytest.approx(32e-3)


def test_one_rank_is_what_was_measured():
    assert scaling.step(WORK, MACHINE, NETWORK, place(1), 64) == {"compute": 18e-3}
    assert scaling.efficiency(WORK, MACHINE, NETWORK, place(1), 64, weak=True) == 1.0


def test_two_ranks_on_one_host_add_up_as_by_hand():
    parts = scaling.step(WORK, MACHINE, NETWORK, place(2), 64)
    assert parts["compute"] == 9e-3
    assert parts["skew"] == pytest.approx(9e-3 * 0.01)  # What two ranks wait on average.
    assert parts["meet"] == pytest.approx(2 * 2e-6)
    rate = scaling.between(8e6, MACHINE.reduction) / 2  # Two of four cores.
    assert parts["reduce"] == pytest.approx(8e6 / rate)
    assert parts["update"] == pytest.approx(1e-4 + 1.9e-3 / 2)
    assert parts["network"] == 0


def test_two_hosts_of_one_rank_swap_three_messages():
    parts = scaling.step(WORK, MACHINE, NETWORK, place(2, 2), 64)
    assert parts["network"] == pytest.approx(3 * 1.1e-5 + (512 + 2e6 + 2e6) / 1e9)
    assert parts["meet"] == 0


def test_ranks_without_a_core_of_their_own_take_turns():
    alone, crowded = (
        scaling.step(WORK, replace(MACHINE, cores=cores), NETWORK, place(4), 128)
        for cores in (4, 2)
    )
    assert crowded["compute"] == 2 * alone["compute"]
    assert crowded["update"] == pytest.approx(2 * alone["update"])
    assert crowded["meet"] == pytest.approx(2 * alone["meet"] + 2e-4)
    assert crowded["skew"] / crowded["compute"] < alone["skew"] / alone["compute"], (
        "only two run at the same time"
    )


def test_lateness_of_two_ranks_is_their_mean_wait_and_grows_with_the_logarithm():
    assert scaling.late(0.05, 1) == 0
    assert scaling.late(0.05, 2) == pytest.approx(0.05)
    # The sum and the asymptotic series meet at a thousand.
    assert scaling.late(0.05, 1000) == pytest.approx(scaling.late(0.05, 999) + 0.1 / 1000, rel=1e-5)
    growth = scaling.late(0.05, 4096) - scaling.late(0.05, 2048)
    assert growth == pytest.approx(0.1 * np.log(2), rel=1e-3)


def test_lateness_is_that_of_exponential_delays():
    delays = np.random.default_rng(0).exponential(1.0, (40_000, 8))
    skew = np.mean(delays[:, :2].max(axis=1) - delays[:, :2].mean(axis=1))
    assert scaling.late(skew, 8) == pytest.approx(
        np.mean(delays.max(axis=1) - delays.mean(axis=1)), rel=0.03
    )


@pytest.mark.parametrize(
    ("ranks", "hosts", "pieces"),
    [(8, 2, 1), (8, 1, 1), (6, 2, 2), (12, 4, 2), (10, 2, 3), (7, 1, 3)],
)
def test_partial_sums_of_hosts(ranks, hosts, pieces):
    assert scaling.largest_pieces(ranks, hosts) == pieces


class _Weights(Layer):
    def __init__(self, count):
        self.weight = Parameter(np.zeros(count, np.float32))


class _Paper:
    """A communicator that only says where its rank is, and writes down how many bytes it would send
    and receive.
    """

    survives = False

    def __init__(self, rank, ranks, hosts):
        self.rank, self.size, self.hosts = rank, ranks, cut(ranks, hosts)
        self.topology = Topology(self.hosts, rank)
        self.sent, self.received = {}, {}

    def sendrecv(self, task, sends, receives):
        self.sent[task[0]] = [array.nbytes for _, array in sends]
        self.received[task[0]] = [array.nbytes for _, array in receives]

    def pending_messages(self, parts):
        return _PaperPlane(self)

    def plan_memory(self, needs):
        pass

    def host_array(self, shape, dtype):
        return np.zeros(shape, dtype)


class _PaperPlane:
    def __init__(self, comm):
        self.comm = comm

    def begin(self, number):
        self.sends, self.receives = [], []

    def expect(self, part, receives):
        self.receives += receives

    def send(self, part, sends):
        self.sends += sends

    def wait(self, task):
        self.comm.sendrecv(task, self.sends, self.receives)


@pytest.mark.parametrize(("ranks", "hosts"), [(2, 2), (8, 2), (8, 4), (12, 4), (16, 16)])
def test_messages_of_the_model_are_those_of_the_reduction(ranks, hosts):
    # One block of the reduction per rank, so that all slices are alike.
    count = ranks * reduce.BLOCK
    comm = _Paper(ranks - 1, ranks, hosts)
    plan = ShardPlan(ranks, ranks, comm.rank)
    exchange = Reducer(_Weights(count), plan, comm)._exchange
    exchange.run((CollectiveKind.EXCHANGE, 0), 1)
    exchange.publish((CollectiveKind.PUBLISH, 0))
    assert (
        len(comm.sent[CollectiveKind.EXCHANGE])
        == len(comm.received[CollectiveKind.EXCHANGE])
        == len(comm.sent[CollectiveKind.PUBLISH])
        == hosts - 1
    )
    _, sums, parameters = scaling.messages(count, place(ranks, hosts))
    assert max(comm.sent[CollectiveKind.EXCHANGE]) == sums
    assert set(comm.sent[CollectiveKind.PUBLISH]) == {parameters}


def test_bytes_of_a_host_are_those_of_a_ring():
    # Sums to one host each and parameters back: as many bytes as the optimal all-reduce moves.
    ranks, hosts, n = 64, 16, 1_000_000
    free = scaling.Network("free", latency=0, bandwidth=1e9, overhead=0)
    _, *large = scaling.messages(n, place(ranks, hosts))
    ours = sum(scaling.sendrecv(free, MACHINE, place(ranks, hosts), size) for size in large)
    assert ours == pytest.approx(scaling.ring(n, hosts, 1e9))


def test_a_compressed_step_takes_time_to_write_and_to_read_messages_and_less_to_send_them():
    plain = scaling.step(WORK, MACHINE, NETWORK, place(4, 2), 64)
    other = scaling.Exchange(1, 8, messages=2, sent=1e5, write=1e-9, read=2e-9)
    parts = scaling.step_by(other, WORK, MACHINE, NETWORK, place(4, 2), 64)
    # Two of eight shards, and half of the parameters of all.
    assert parts.pop("compress") == pytest.approx(1e6 * (2 * 1e-9 + 4 * 2e-9))
    assert parts.pop("network") == pytest.approx(2 * (1e-5 + 1e-6) + 1e5 / 1e9)
    assert parts == {name: value for name, value in plain.items() if name != "network"}


def test_workers_that_train_apart_meet_seldom_and_each_update_all_parameters():
    plain = scaling.step(WORK, MACHINE, NETWORK, place(4, 2), 64)
    other = scaling.Exchange(16, 8, messages=4 / 16, sent=1e6, write=1e-9)
    parts = scaling.step_by(other, WORK, MACHINE, NETWORK, place(4, 2), 64)
    assert parts["compute"] == plain["compute"]
    assert parts["skew"] == pytest.approx(plain["skew"] / 4)
    assert parts["meet"] == pytest.approx(plain["meet"] / 16)
    assert parts["update"] == pytest.approx(2 * 2e-3 + plain["update"] / 16)
    assert parts["compress"] == pytest.approx(1e6 * 2 * 1e-9 / 16)
    assert parts["network"] == pytest.approx(1.1e-5 / 4 + 1e6 / 1e9)


def test_what_is_exchanged_seldom_is_sent_on_no_network_of_one_host():
    other = scaling.Exchange(16, 8, messages=4, sent=1e6)
    assert scaling.step_by(other, WORK, MACHINE, NETWORK, place(4), 64)["network"] == 0


def test_efficiency_falls_with_ranks_and_rises_with_the_network():
    def share(hosts, network, weak):
        return scaling.efficiency(WORK, MACHINE, network, place(4 * hosts, hosts), 64, weak=weak)

    faster = replace(NETWORK, bandwidth=10e9)
    for weak in (True, False):
        shares = [share(hosts, NETWORK, weak) for hosts in (1, 2, 4, 8, 16)]
        assert shares == sorted(shares, reverse=True)
        assert share(8, faster, weak) > share(8, NETWORK, weak)


def test_a_host_of_more_cores_has_their_bandwidth():
    larger = scaling.bigger(MACHINE, 16)
    assert (larger.cores, larger.stream) == (16, 1600e9)
    assert larger.reduction == {4e5: 320e9, 4e8: 80e9}


def test_line_finds_latency_and_bandwidth():
    exact = {m: 3e-6 + m / 2e9 for m in (64, 4096, 2**20)}
    assert scaling.line(exact) == pytest.approx((3e-6, 2e9))


def test_bounds_of_overlap():
    assert scaling.bounds(0.3, 0.1) == pytest.approx((0.75, 1.0))
    assert scaling.bounds(0.3, 0.3) == pytest.approx((0.5, 0.75))


def test_an_update_takes_no_less_than_its_bytes_in_memory():
    slow = replace(MACHINE, stream=24e9)
    parts = scaling.step(WORK, slow, NETWORK, place(4), 64)
    assert parts["update"] == pytest.approx(1e-4 + 24e6 / 24e9)


def test_what_ranks_share_exists_once():
    assert scaling.state(10, 4, shared=True) == {
        "parameters": 40,
        "gradients": 160,
        "optimizer": 80,
    }
    assert scaling.state(10, 4, shared=False) == {
        "parameters": 160,
        "gradients": 160,
        "optimizer": 320,
    }
