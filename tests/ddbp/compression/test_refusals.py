"""What compressors refuse, and how they say so."""

import numpy as np
import pytest

import ddbp
from ddbp.comm.serial import SerialCommunicator
from ddbp.compression import chosen
from ddbp.training import checks
from layers import Linear, Sequential

from ..training.small import make, network

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("make_it", "said"),
    [
        (lambda: ddbp.TopK(), "TopK: ratio or count must be given; got ratio None, count None"),
        (lambda: ddbp.TopK(0.1, 5), "TopK: ratio or count must be given; got ratio 0.1, count 5"),
        (lambda: ddbp.TopK(0), "TopK: ratio must be positive"),
        (lambda: ddbp.TopK(1.5), "TopK: ratio must be at most 1"),
        (lambda: ddbp.TopK("most"), "TopK: ratio must be"),
        (lambda: ddbp.TopK(count=0), "TopK: count must be"),
        (lambda: ddbp.PowerSGD(0), "PowerSGD: rank must be"),
        (lambda: ddbp.PowerSGD(1.5), "PowerSGD: rank must be"),
    ],
)
def test_constants_out_of_range_are_refused(make_it, said):
    with pytest.raises((TypeError, ValueError)) as caught:
        make_it()
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("topk", "be a compressor, or one of top-k:NUMBER, power-sgd:NUMBER, sign, float16"),
        ("top-k", "compression must be a compressor"),
        ("sign:3", "compression must be a compressor"),
        (3, "compression must be a compressor"),
        (ddbp.TopK, "compression must be a compressor"),
        ("top-k:few", "top-k: must have a number; got 'few'"),
        ("top-k:５", "top-k: must have a number; got '５'"),
        ("power-sgd:1_0", "power-sgd: must have a number; got '1_0'"),
        ("top-k:nan", "top-k: must have a number; got 'nan'"),
        ("top-k:1e400", "TopK: ratio must be"),
        ("power-sgd:0.5", "PowerSGD: rank must be"),
        ("top-k:7.5", "TopK: ratio must be"),
        ("power-sgd:0", "PowerSGD: rank must be"),
    ],
)
def test_names_that_are_none_are_refused(given, said):
    with pytest.raises(ValueError, match=r".") as caught:
        make(compression=given)
    assert said in str(caught.value)


@pytest.mark.parametrize("wire", ["float16", "bfloat16"])
@pytest.mark.parametrize("compression", [ddbp.TopK(0.1), "int8"])
def test_compression_and_a_wire_are_refused_together(compression, wire):
    said = f"compression and wire cannot go together.*; got compression={compression}, wire="
    with pytest.raises(ValueError, match=said):
        make(compression=compression, wire=wire)


def test_more_elements_than_there_are_parameters_are_refused():
    make(compression=ddbp.TopK(count=163))
    with pytest.raises(ValueError, match="number of parameters that are trained; got 164 of 163"):
        make(compression=ddbp.TopK(count=164))


def test_rank_above_those_of_all_matrices_is_refused():
    make(compression=ddbp.PowerSGD(6))
    with pytest.raises(
        ValueError, match="smaller side of the largest matrix of the model; got 7 o"
    ):
        make(compression=ddbp.PowerSGD(7))


def test_model_of_float64_is_refused():
    for compression in (ddbp.Sign(), "int8"):
        with pytest.raises(ValueError, match="compression takes a float32 model; got float64"):
            make(network(dtype=np.float64), dtype=np.float64, compression=compression)


class Surviving(SerialCommunicator):
    """Ranks of some hosts that survive each other, as one of them sees them."""

    survives = True

    def __init__(self, hosts):
        super().__init__()
        self.hosts = np.arange(hosts + 1)


def test_residuals_are_refused_where_a_killed_rank_would_lose_them():
    comm = Surviving(1)
    said = "needs an optimizer that works by blocks; got Muon"
    with pytest.raises(ValueError, match=said):
        checks.goes_with_compression(ddbp.Sign(), network(), ddbp.Muon(0.1), comm)
    checks.goes_with_compression(ddbp.Sign(), network(), ddbp.Adam(0.1), comm)
    checks.goes_with_compression(chosen("int8"), network(), ddbp.Muon(0.1), comm)
    with pytest.raises(ValueError, match="survive each other must be on one host; got 2 hosts"):
        checks.goes_with_compression(ddbp.Sign(), network(), ddbp.Adam(0.1), Surviving(2))
    checks.goes_with_compression(chosen("int8"), network(), ddbp.Muon(0.1), Surviving(2))


def test_freezing_that_leaves_too_little_is_refused_and_can_be_taken_back():
    x, y = RNG.standard_normal((20, 6)).astype(np.float32), np.arange(20) % 3
    for compression, said in (ddbp.TopK(count=30), "30 of 15"), (ddbp.PowerSGD(4), "4 of 3"):
        digests = []
        for freezes in False, True:
            rng = np.random.default_rng(1)
            model = Sequential(Linear(6, 5, rng=rng), Linear(5, 3, rng=rng))
            trainer = make(model, compression=compression)
            trainer.train_step(x, y)
            if freezes:
                model[0].freeze()
                model[1].bias.trainable = isinstance(compression, ddbp.PowerSGD)
                with pytest.raises(ValueError, match=f"got {said}"):
                    trainer.train_step(x, y)
                model.unfreeze()
            trainer.train_step(x, y)
            digests.append(trainer.parameters_sha256())
        assert digests[0] == digests[1]
