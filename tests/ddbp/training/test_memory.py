"""Bits that flip in parameters and moments between two updates are named; whatever else changes
there is none of that.
"""

import random
import re
from contextlib import nullcontext

import numpy as np
import pytest

import ddbp
from layers import BatchNorm, Linear, PReLU, ReLU, Sequential, SoftmaxCrossEntropy
from layers.kernels.packed import line_of
from layers.kernels.updates import UNDO_BLOCK

from ..optim.table import BY_BLOCKS, WHOLE
from .small import DATA, LABELS, X, make, network, parameters


@pytest.fixture(autouse=True)
def _checked(monkeypatch):
    monkeypatch.setenv("DDBP_CHECK_MEMORY", "1")


OPTIMIZERS = BY_BLOCKS | WHOLE


def deep(dtype=np.float32):
    return network(Linear(16, 16, rng=np.random.default_rng(2), dtype=dtype), dtype=dtype)


def arrays(trainer):
    """Return what is checked, by what errors call it."""
    named = {"the value": trainer.partition.values}
    return named | {f"the moment {k!r}": m for k, m in trainer.optimizer.moments.items()}


def flip(array, element, bit):
    """Flip a bit of an element, of its code where the array is packed."""
    line = line_of(array)
    place = element // line * (line + (line > 1)) + element % line
    place = place * array.itemsize + bit // 8
    array.reshape(-1).view(np.uint8)[place] ^= np.uint8(1 << bit % 8)


def steps(trainer, count=3):
    for _ in range(count):
        trainer.train_step(X[:20], LABELS[:20])


def assert_names(error, trainer, what, element):
    """See to it that an error names a range with this element of the partition."""
    (span,) = [s for s in trainer.partition.spans if s.start <= element < s.stop]
    name = trainer.partition.names[span.parameter]
    found = re.search(re.escape(name) + r"\[(\d+):(\d+)\]", str(error.value))
    assert what in str(error.value)
    assert found, error.value
    first, last = map(int, found.groups())
    assert first <= element - span.start + span.offset < last
    assert last - first <= UNDO_BLOCK


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_flipped_bit_is_named_in_the_update_that_reads_it(name, dtype):
    rng = random.Random(name)
    trainer = make(deep(dtype), optimizer=OPTIMIZERS[name]())
    spans = trainer.partition.spans
    for _ in range(12):
        steps(trainer)
        # Moments that only a group has are those of its parameters.
        state = trainer.state()
        what, array = rng.choice(
            [(k, a) for k, a in arrays(trainer).items() if "largest" not in k or name != "groups"]
        )
        span = rng.choice(spans)
        element, bit = rng.randrange(span.start, span.stop), rng.randrange(8 * array.itemsize)
        flip(array, element, bit)
        ahead = f"ahead of the update of step {trainer.optimizer.steps} "
        with pytest.raises(ddbp.MemoryCorruptionError, match=ahead) as error:
            steps(trainer, 1)
        assert_names(error, trainer, what, element)
        trainer.load_state(state)


def test_flipped_bit_of_a_moment_is_named_where_a_script_changes_parameters():
    trainer = make()
    steps(trainer)
    flip(trainer.optimizer.moments["momentum"], 20, 3)
    trainer.model[0].weight.value = np.clip(trainer.model[0].weight.value, -0.1, 0.1)
    with pytest.raises(ddbp.MemoryCorruptionError, match="the moment 'momentum'"):
        steps(trainer)


def test_flipped_bit_is_named_before_it_is_saved():
    trainer = make()
    steps(trainer)
    flip(trainer.optimizer.moments["momentum"], 20, 3)
    with pytest.raises(
        ddbp.MemoryCorruptionError, match=r"'momentum' of layers\.0\.weight\[0:96\]"
    ):
        trainer.state()


def test_flipped_bit_is_named_before_parameters_move():
    trainer = make()
    steps(trainer)
    flip(trainer.partition.values, 20, 3)
    trainer.model[2].freeze()
    with pytest.raises(ddbp.MemoryCorruptionError, match=r"the value of layers\.0\.weight"):
        steps(trainer)


def test_nothing_is_checked_unless_that_is_asked_for(monkeypatch):
    monkeypatch.delenv("DDBP_CHECK_MEMORY")
    trainer = make()
    steps(trainer)
    flip(trainer.partition.values, 20, 3)
    steps(trainer)
    assert trainer.optimizer.checksums is None


def test_checked_training_has_the_bits_of_training_that_is_not(monkeypatch):
    found = []
    for text in ("0", "1"):
        monkeypatch.setenv("DDBP_CHECK_MEMORY", text)
        trainers = [make(deep(), optimizer=each()) for each in OPTIMIZERS.values()]
        for trainer in trainers:
            steps(trainer)
        found.append([parameters(trainer) for trainer in trainers])
    for plain, checked in zip(*found, strict=True):
        np.testing.assert_array_equal(plain, checked)


# What changes parameters and moments as it may.


def load_a_state(trainer, folder):
    state = trainer.state()
    steps(trainer)
    trainer.load_state(state)


def load_the_state_of_another(trainer, folder):
    other = make(callbacks=[ddbp.ExponentialMovingAverage(0.9)])
    steps(other)
    trainer.load_state(other.state())


def assign(trainer, folder):
    trainer.model[0].weight.value = np.zeros((16, 6))


def multiply_in_place(trainer, folder):
    trainer.model[0].bias.value += 1


def change_in_place_within_the_context(trainer, folder):
    with ddbp.modify_parameters(trainer) as mine:
        assert mine
        trainer.model[0].weight.value[...] = 0
        np.clip(trainer.model[2].weight.value, -0.1, 0.1, out=trainer.model[2].weight.value)


def load_a_file(trainer, folder):
    ddbp.save_parameters(make(network()).model, folder / "p.safetensors")
    ddbp.load_parameters(trainer.model, folder / "p.safetensors")


def freeze_and_unfreeze(trainer, folder):
    trainer.model[2].freeze()
    steps(trainer)
    trainer.model[2].unfreeze()
    steps(trainer)
    trainer.model[0].bias.trainable = False


def change_what_is_frozen(trainer, folder):
    trainer.model[2].freeze()
    steps(trainer)
    trainer.model[2].weight.value[...] = 1


def take_the_average(trainer, folder):
    average = trainer.callbacks[0]
    with average.applied(trainer):
        trainer.evaluate(DATA)
    steps(trainer)
    average.apply(trainer)


def fit_with_validation(trainer, folder):
    trainer.fit(DATA, epochs=2, validation=DATA)


def predict_and_evaluate(trainer, folder):
    trainer.predict(X)
    trainer.evaluate(DATA)
    trainer.parameters_sha256()


def fail_in_an_update(trainer, folder):
    """Have a schedule raise an error that a script catches."""
    rate, trainer.optimizer.schedule.rate = trainer.optimizer.schedule.rate, None
    with pytest.raises(TypeError):
        steps(trainer, 1)
    trainer.optimizer.schedule.rate = rate


WAYS = [
    *(load_a_state, load_the_state_of_another, assign, multiply_in_place),
    *(change_in_place_within_the_context, load_a_file, freeze_and_unfreeze, change_what_is_frozen),
    *(take_the_average, fit_with_validation, predict_and_evaluate, fail_in_an_update),
]


@pytest.mark.parametrize("way", WAYS)
def test_change_that_a_script_may_make_is_no_false_alarm(way, tmp_path):
    trainer = make(callbacks=[ddbp.ExponentialMovingAverage(0.9)])
    steps(trainer)
    way(trainer, tmp_path)
    steps(trainer)
    trainer.state()


@pytest.mark.parametrize(
    "callback",
    [
        lambda: ddbp.BestWeights("loss", mode="max"),
        lambda: ddbp.EarlyStopping(
            monitor="loss", mode="max", patience=1, restore_best_weights=True
        ),
    ],
)
def test_best_weights_that_return_are_no_false_alarm(callback):
    trainer = make(callbacks=[callback()])
    for _ in range(2):
        trainer.fit(DATA, epochs=4, validation=DATA)
    steps(trainer)


@pytest.mark.parametrize("optimizer", ["AdamW", "groups", "Muon", "Lion in 8 bits"])
def test_run_that_is_resumed_is_no_false_alarm(optimizer, tmp_path):
    class Dies(ddbp.Callback):
        def on_step_end(self, trainer, step, loss):
            if step == 7:
                raise ValueError("the end")

    for callbacks in ([Dies()], []):
        rng = np.random.default_rng(1)
        model = Sequential(Linear(6, 16, rng=rng), BatchNorm(16), Linear(16, 3, rng=rng))
        trainer = make(
            deep() if optimizer == "groups" else model,
            optimizer=OPTIMIZERS[optimizer](),
            callbacks=[ddbp.Checkpoints(every_steps=2, background=False), *callbacks],
            run_dir=tmp_path,
            resume="auto",
        )
        with pytest.raises(ValueError, match="the end") if callbacks else nullcontext():
            trainer.fit(DATA, epochs=3)
    assert trainer.step_count == 15


@pytest.mark.parametrize(
    "options",
    [
        {"clip_norm": 0.1},
        {"l1": 0.1, "l2": 0.1, "clip_value": 0.1},
        {"accumulate": 3},
        {"shards": 4},
        {"transforms": [ddbp.ClipParameterNorms(0.1)]},
    ],
)
def test_option_is_no_false_alarm(options):
    make(**options).fit(DATA, epochs=2)


def test_two_trainers_with_models_of_their_own_take_turns_without_false_alarms():
    first, second = make(), make(network(ReLU()))
    for _ in range(3):
        steps(first, 1)
        steps(second, 2)


def test_change_in_place_without_the_context_is_told_how_to_do_it():
    trainer = make()
    steps(trainer)
    trainer.model[0].weight.value[...] = 0
    with pytest.raises(ddbp.MemoryCorruptionError, match=r"within ddbp\.modify_parameters"):
        steps(trainer)


def test_optimizer_that_says_nothing_of_blocks_is_checked_too():
    class Own(ddbp.SGD):
        def update(self, chunk, moments, rate):
            chunk.values[:] -= rate * chunk.gradient

    trainer = make(optimizer=Own(0.1, momentum=0.9), loss=SoftmaxCrossEntropy())
    steps(trainer)
    flip(trainer.partition.values, 5, 30)
    with pytest.raises(ddbp.MemoryCorruptionError, match="the value of"):
        steps(trainer)


class Watching(ddbp.Callback):
    """Has memory watched."""

    watches_memory = True


@pytest.fixture
def watched(monkeypatch):
    """Return the function that makes a trainer whose memory is watched."""
    monkeypatch.delenv("DDBP_CHECK_MEMORY")

    def trainer(model=None, **options):
        return make(model or deep(), callbacks=[Watching()], **options)

    return trainer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_flipped_bit_is_told_of_where_memory_is_watched_and_training_goes_on(name, watched):
    trainer = watched(optimizer=OPTIMIZERS[name]())
    rng = random.Random(name)
    for what, array in arrays(trainer).items():
        if "largest" in what and name == "groups":
            continue
        steps(trainer)
        state, copied = trainer.state(), array.copy()
        span = rng.choice(trainer.partition.spans)
        bit = rng.randrange(min(23, 8 * array.itemsize))
        flip(array, rng.randrange(span.start, span.stop), bit)
        damaged = array.copy()
        step = trainer.optimizer.steps
        steps(trainer)
        flipped = trainer.optimizer.checksums.flipped
        assert flipped.startswith(f"{what} of ")
        assert f"ahead of the update of step {step} " in flipped
        # All blocks were updated as ever: the bits are those of a trainer that has found nothing.
        found = parameters(trainer)
        np.copyto(array, copied)
        trainer.load_state(state)
        np.copyto(array, damaged)
        steps(trainer)
        np.testing.assert_array_equal(parameters(trainer), found)
        trainer.load_state(state)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_a_script_changes_in_place_is_no_flipped_bit(name, watched):
    trainer = watched(optimizer=OPTIMIZERS[name]())
    for change in (
        lambda array: np.multiply(array, 2, out=array),
        lambda array: np.floor_divide(array, 3, out=array),
        lambda array: np.divide(array[:2], 4, out=array[:2]),
        lambda array: array.fill(0),
    ):
        changed = [each.value for each in trainer.model.parameters()]
        plain = [array for array in arrays(trainer).values() if array.dtype == np.float32]
        for array in (*changed, *plain):
            steps(trainer, 2)
            change(array)
            steps(trainer, 2)
            assert trainer.optimizer.checksums.flipped == ""


def test_number_that_a_script_halves_is_no_flipped_bit(watched):
    # Which changes one bit of its exponent.
    number = PReLU()
    trainer = watched(network(Linear(16, 16, rng=np.random.default_rng(2)), number))
    for _ in range(3):
        number.weight.value = np.array([0.5], np.float32)
        steps(trainer, 1)
        number.weight.value[...] /= 2
        steps(trainer, 1)
    assert trainer.optimizer.checksums.flipped == ""
