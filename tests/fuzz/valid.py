"""Rows of the table of public calls: valid arguments, and what they are made of."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import ddbp
import layers
from ddbp import attribution, data, export, script, sklearn
from ddbp.data import augment
from layers import init, models
from layers.gradient_check.cases import Apply

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((4, 6)).astype(np.float32)
LINES = RNG.standard_normal((4, 8, 6)).astype(np.float32)
IMAGES = RNG.standard_normal((4, 6, 7, 6)).astype(np.float32)
VOLUMES = RNG.standard_normal((2, 4, 5, 4, 6)).astype(np.float32)
POSITIVE = np.abs(ROWS) + np.float32(0.5)
LABELS = np.arange(4) % 3
TOKENS = np.arange(20).reshape(4, 5) % 7
STATE = RNG.standard_normal((4, 5)).astype(np.float32)
TREES = np.array([(-1, 0, 0, 1), (-1, 0, 1, 2), (-1, -2, -2, -2), (1, -1, 3, 1)])
NODES = RNG.standard_normal((4, 4, 6)).astype(np.float32)
X = RNG.standard_normal((12, 6)).astype(np.float32)
Y = np.arange(12) % 3
DATA = ddbp.ArrayDataset(X, Y)


@dataclass
class Row:
    """A public function, class or method, called with valid arguments by name.

    Attributes
    ----------
    name
        The full public name; of a method, with that of its class before it.
    function
        What is called.
    arguments
        Valid ones by name; those that a function takes in order, and without a name, have numbers.
    then
        What is done with the result.
    endless
        Arguments of which large numbers take as long as they say.
    """

    name: str
    function: Callable[..., Any]
    arguments: dict[Any, Any]
    then: Callable[[Any], Any] = lambda result: None
    endless: tuple[str, ...] = ()
    of: Callable[..., Any] | None = field(default=None)


def row(name: str, *given: Any, then: Any = None, endless: Any = (), **named: Any) -> Row:
    """Return the row of a name in `layers`, or in the module before its last dot."""
    module, _, last = name.rpartition(".")
    places = {"": layers, "ddbp": ddbp, "init": init, "models": models, "script": script}
    places["rules"] = layers.rules
    rooms = {"attribution": attribution, "data": data, "export": export, "sklearn": sklearn}
    rooms["augment"] = augment
    where: Any = {**places, **rooms}[module]
    full = where.__name__
    arguments = {**dict(enumerate(given)), **named}
    then = then or (lambda result: None)
    return Row(f"{full}.{last}", getattr(where, last), arguments, then, endless)


def layer(name: str, *given: Any, x: Any, endless: Any = (), **named: Any) -> Row:
    """Return the row of a layer, which is then called with the inputs `x`: alone, and on a tape."""
    inputs = x if isinstance(x, tuple) else (x,)
    return row(name, *given, then=lambda made: passes(made, *inputs), endless=endless, **named)


def passes(made: Any, *inputs: Any) -> None:
    """Run a layer outside a tape, and then forward and backward on one."""
    # A function of values is NumPy's own business where there are none.
    if not isinstance(made, Apply):
        made(*inputs)
    tape = layers.Tape(training=True, seed=1)
    values = [
        tape.input(x) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x for x in inputs
    ]
    y = made(*(values if any(isinstance(v, layers.Value) for v in values) else inputs))
    for each in y if isinstance(y, tuple) else (y,):
        if isinstance(each, layers.Value) and each.wants:
            each.sum().backward()
            break


def learns(rule: Any) -> None:
    """Bind a rule to a network, and propagate a batch by it."""
    model = deeper()
    rule.bind(model)
    x, labels, loss = layers.Tape(training=True).input(X), Y, layers.SoftmaxCrossEntropy()
    losses = rule.losses(model, loss, x, labels)
    start = loss(model(x), labels) if losses is None else losses[1]
    start.backward(rule=rule)


def deeper() -> layers.Sequential:
    """Return a network with two hidden layers."""
    rng = np.random.default_rng(1)
    parts = [layers.Linear(6, 5, rng=rng), layers.Tanh(), layers.Linear(5, 5, rng=rng)]
    return layers.Sequential(*parts, layers.Tanh(), layers.Linear(5, 3, rng=rng))


def method(make: Callable[[], Any], name: str, method_name: str, **options: Any) -> Row:
    """Return the row of a method of what `make` returns, made anew for each call."""
    endless, then = options.pop("endless", ()), options.pop("then", lambda result: None)
    owner = type(make())

    def call(*given: Any, **named: Any) -> Any:
        return getattr(make(), method_name)(*given, **named)

    of = getattr(owner, method_name)
    return Row(f"{name}.{method_name}", call, options, then, endless, of)


def network() -> layers.Sequential:
    """Return a small network."""
    rng = np.random.default_rng(1)
    return layers.Sequential(
        layers.Linear(6, 5, rng=rng), layers.ReLU(), layers.Linear(5, 3, rng=rng)
    )


def pooled(first: Any) -> layers.Sequential:
    """Return a classifier of sequences that begins with a layer of five outputs."""
    rng = np.random.default_rng(1)
    return layers.Sequential(first, layers.PoolOverTime(), layers.Linear(5, 3, rng=rng))


def trainer(**options: Any) -> ddbp.Trainer:
    """Return a quiet trainer of a small network."""
    usual = {
        "loss": layers.SoftmaxCrossEntropy(),
        "optimizer": ddbp.SGD(0.1),
        "batch_size": 4,
        "quiet": True,
    }
    return ddbp.Trainer(**({"model": network()} | usual | options))


def value(x: Any = ROWS) -> layers.Value:
    """Return a value on a tape of its own."""
    return layers.Tape().input(x)


def _operate(name: str, x: Any) -> Any:
    return getattr(value(), name)(x)


def with_optimizer(made: Any) -> None:
    """Train a step with an optimizer."""
    trainer(optimizer=made).train_step(X[:4], Y[:4])


def with_callback(made: Any) -> None:
    """Train an epoch with a callback."""
    trainer(callbacks=[made]).fit(DATA, epochs=1, validation=DATA)


def with_doctor(made: Any) -> None:
    """Train an epoch with a doctor."""
    trainer(callbacks=[ddbp.Instruments(), made]).fit(DATA, epochs=1, validation=DATA)


def rates(made: Any) -> None:
    """Ask a schedule for its first rates."""
    begun = made.begun()
    for step in (0, 1, 5, 10**6):
        begun.rate(step)


def flags(**given: Any) -> argparse.Namespace:
    """Return the options of a script."""
    parsed = script.Flags("About.", epochs=1, batch_size=4, learning_rate=0.1).parse_args([])
    for name, each in ({"quiet": True, "run_dir": Path("run")} | given).items():
        setattr(parsed, name, each)
    return parsed


def common(**options: Any) -> list[Row]:
    """Return the rows of the optimizers."""
    names = (
        *("SGD", "RMSProp", "Adam", "AdamW", "RAdam", "AdaGrad", "Adafactor", "Lion", "Muon"),
        *("LARS", "LAMB"),
    )
    return [
        row(f"ddbp.{name}", learning_rate=0.1, then=with_optimizer, endless=("iterations",))
        for name in names
    ]
