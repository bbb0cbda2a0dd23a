"""The model of networks, and which exchange it recommends."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import ddbp
from ddbp.comm.serial import SerialCommunicator
from ddbp.seldom import network
from ddbp.seldom.network import ENOUGH, Network, measured, recommended, ways
from ddbp.training import advice
from layers import Linear, Sequential

SHAPES = [(512, 784), (512,), (10, 512), (10,)]
N = 512 * 784 + 512 + 10 * 512 + 10


MEAN = "exchange=DiLoCo(workers={}, every={}, outer_rate=1.0, outer_momentum=0.0, bits=8)"


def test_one_host_has_no_network():
    assert measured(SerialCommunicator()) is None


class TwoHosts:
    """Ranks of two hosts, as far as a measurement asks."""

    hosts, size = np.array([0, 1, 2]), 2
    topology = SimpleNamespace(own=0)

    def all_gather(self, array):
        return np.stack([array, array])


@pytest.mark.parametrize("latency", [1e-4, 0.02, 0.3])
@pytest.mark.parametrize("bandwidth", [1e4, 1e6, 1e9])
def test_latency_and_bandwidth_are_found_however_slow_the_network_is(
    latency, bandwidth, monkeypatch
):
    def seconds(comm, size):
        # Two rounds of five are disturbed.
        exact = latency + (size - 64) / bandwidth
        return [exact, exact + 0.2, exact, exact + 3.0, exact]

    monkeypatch.setattr(network, "_seconds", seconds)
    found = measured(TwoHosts())
    assert found.hosts == 2
    assert found.latency == pytest.approx(latency)
    assert found.bandwidth == pytest.approx(bandwidth)


def test_messages_one_after_the_other_each_take_the_latency():
    assert Network(2, 0.01, 1e6).seconds(3, 5e5) == pytest.approx(0.53)


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_bytes_are_those_that_a_host_sends(hosts):
    of = {way.arguments: way for way in ways(SHAPES, hosts, hosts)}
    plain = of[""]
    assert plain.sent == pytest.approx(8 * N * (hosts - 1) / hosts)
    assert of['wire="bfloat16"'].sent == pytest.approx(0.75 * plain.sent)
    local = of[f"exchange=LocalSGD(workers={hosts}, every=16)"]
    assert local.sent == pytest.approx(plain.sent / 16)
    coded = of[MEAN.format(hosts, 32)]
    assert coded.sent == pytest.approx(N * (1 + 4 / 256) * (hosts - 1) / 32)


def test_what_is_recommended_becomes_more_seldom_as_the_network_becomes_slower():
    of = ways(SHAPES, 2, 2)
    places = [
        of.index(recommended(Network(2, 1e-5, bandwidth), of, compute=0.01))
        for bandwidth in (1e10, 1e9, 1e8, 1e7, 1e6, 1e5)
    ]
    assert places == sorted(places)
    assert places[0] == 0
    assert places[-1] == len(of) - 1


def test_what_is_recommended_is_the_first_whose_messages_take_little_of_the_time():
    of, found = ways(SHAPES, 2, 2), Network(2, 1e-3, 12.5e6)
    chosen = recommended(found, of, compute=0.01)
    shares = [found.seconds(way.messages, way.sent) for way in of]
    shares = [spent / (0.01 + spent) for spent in shares]
    place = of.index(chosen)
    assert shares[place] <= ENOUGH
    assert min(shares[:place]) > ENOUGH


def test_what_is_recommended_is_written_as_the_trainer_takes_it():
    for way in ways(SHAPES, 2, 2):
        for kind in ("LocalSGD", "DiLoCo"):
            if kind in way.arguments:
                text = way.arguments.removeprefix("exchange=")
                apart = ddbp.TrainerOptions(batch_size=8, exchange=text).exchange
                assert apart.workers == 2
                # The workers' mean takes the place of the common parameters.
                assert repr(apart.outer()) == repr(ddbp.SGD(1.0))


RNG = np.random.default_rng(1)
DATA = ddbp.ArrayDataset(RNG.standard_normal((80, 3)), RNG.standard_normal((80, 2)))


def network_of(seed):
    """Return a network of one layer."""
    return Sequential(Linear(3, 2, rng=np.random.default_rng(seed)))


def trained(data=DATA, **options):
    """Return a trainer after two epochs."""
    trainer = ddbp.Trainer(
        network_of(0),
        loss="mse",
        optimizer=ddbp.SGD(0.01),
        batch_size=8,
        quiet=True,
        **options,
    )
    trainer.fit(data, epochs=2)
    return trainer


def test_a_trainer_on_one_host_says_once_that_nothing_is_sent(capsys):
    trainer = trained(network="auto")
    assert capsys.readouterr().err.count("Network: one host: nothing is sent") == 1
    assert trainer.advice.way.arguments == ""
    assert trained().advice is None


def test_advice_changes_no_bit():
    assert trained(network="auto").parameters_sha256() == trained().parameters_sha256()


class TwoRanks(SerialCommunicator):
    """A rank whose neighbour's first number is 0.004."""

    size = 2

    def all_gather(self, array):
        return np.stack([array, np.full_like(array, 0.004)])


@pytest.mark.parametrize(("comm", "compute"), [(SerialCommunicator(), 0.003), (TwoRanks(), 0.004)])
def test_a_batch_computes_as_long_as_the_slowest_rank_takes_undisturbed(comm, compute, monkeypatch):
    # Kernels are compiled, then somebody else computes now and then, and an epoch ends.
    seconds = [9.0, 0.5, 0.001, *[0.006] * 5, 0.0001, 0.003, 0.9, 0.0031, 0.003]
    told = advice.Advice(quiet=True)
    trainer = SimpleNamespace(
        options=ddbp.TrainerOptions(batch_size=8),
        comm=comm,
        model=network_of(0),
        recovered=lambda act, *given: act(*given),
    )
    for step, each in enumerate(seconds, 1):
        assert told.way is None
        times = iter([100.0, 100.0 + each])
        monkeypatch.setattr(advice, "time", SimpleNamespace(perf_counter=times.__next__))
        told.on_step_begin(trainer, step)
        told.on_phase(trainer, ddbp.StepPhase.EXCHANGE)
        told.on_step_end(trainer, step, 0.0)
    assert told.compute == pytest.approx(compute)
    assert told.way.arguments == ""


SLOW = Network(2, 1.0, 1e5)


def chosen(network=SLOW, data=DATA, **options):
    """Return a trainer that has chosen for a network, and the same with what it says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(advice, "measured", lambda comm: network)
        trainer = trained(data, network=data, **options)
    way = trainer.advice.way
    return trainer, trained(data, **(options | {"run_dir": None} | dict(way.options)))


MORE = ddbp.ArrayDataset(RNG.standard_normal((2600, 3)), RNG.standard_normal((2600, 2)))
"""325 batches."""


def test_a_trainer_that_is_given_data_chooses_what_is_recommended(capsys, tmp_path):
    trainer, same = chosen(data=MORE, run_dir=tmp_path)
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "Network: " in each]
    assert line.endswith(f" Chosen: {trainer.advice.way.arguments}")
    # There are ten exchanges in an epoch at least.
    assert trainer.advice.way.arguments == MEAN.format(1, 32)
    assert trainer.options == same.options
    assert trainer.parameters_sha256() == same.parameters_sha256()
    configuration = json.loads((tmp_path / "config.json").read_text())
    assert configuration["network"]["recommended"] == trainer.advice.way.arguments
    assert configuration["network"]["measured"]["hosts"] == 2
    assert trainer.options.exchange == ddbp.TrainerOptions.read(tmp_path).exchange


@pytest.mark.parametrize(
    ("batches", "most"), [(39, 0), (40, 4), (159, 4), (160, 16), (319, 16), (320, 32), (5000, 500)]
)
def test_no_exchange_is_chosen_of_which_there_are_fewer_than_ten_in_an_epoch(batches, most):
    data = ddbp.ArrayDataset(np.ones((8 * batches - 7, 3)), np.ones((8 * batches - 7, 2)))
    comm, options = SerialCommunicator(), ddbp.TrainerOptions(batch_size=8)
    around = network_of(0), ddbp.SGD(0.1), [], comm, data, None
    going = [
        ddbp.TrainerOptions(batch_size=8, **way.options).exchange
        for way in ways(SHAPES, 2, 1)
        if "exchange" in way.options and advice._goes(way, options, *around)
    ]
    assert max((apart.every for apart in going), default=0) == most


def test_what_does_not_go_with_other_options_is_not_chosen():
    trainer, _ = chosen(accumulate=2)
    assert trainer.advice.way.options == {"compression": "top-k:0.01", "shards": 1}


def test_workers_that_train_apart_are_not_chosen_where_steps_keep_to_a_budget():
    trainer, same = chosen(memory="1 MB")
    assert trainer.options.exchange is None
    assert trainer.advice.way.options["compression"] is not None
    assert trainer.parameters_sha256() == same.parameters_sha256()


def test_between_hosts_that_survive_each_other_nothing_goes_that_bits_would_depend_on():
    comm = TwoHosts()
    comm.survives = True
    options = ddbp.TrainerOptions(batch_size=8)
    around = network_of(0), ddbp.SGD(0.1), [], comm, DATA, None
    going = [way for way in ways(SHAPES, 2, 2) if advice._goes(way, options, *around)]
    assert [way.options for way in going] == [{}]


def test_nothing_is_chosen_on_one_host():
    trainer, same = chosen(None)
    assert trainer.advice.way.options == {}
    assert trainer.parameters_sha256() == same.parameters_sha256() == trained().parameters_sha256()


@pytest.mark.parametrize(
    "given", [{"wire": "bfloat16"}, {"compression": "sign"}, {"exchange": "LocalSGD(1, 4)"}]
)
def test_what_is_given_is_not_chosen(given):
    with pytest.raises(ValueError, match=f"network= and {next(iter(given))} cannot go together"):
        trained(network=DATA, **given)


def test_other_words_are_refused():
    with pytest.raises(ValueError, match=r"network must be \"auto\" or a data set; got 'fast'"):
        trained(network="fast")
