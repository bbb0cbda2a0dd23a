"""Count the memory that training steps take beside parameters, and time them, with layers that are
computed again: in segments, and by a plan within a budget; and the same in PyTorch.

    python scripts/bench/recompute.py [NETWORK ...] [--json FILE] [--rounds R]

Ours is all that the tape's workspace holds; PyTorch's is what its tensors hold that autograd saves
for backward, counted by its hooks, each storage once, without parameters, and the most that one
segment saves while it is computed again. Each way of ours runs in turns with the ordinary step, and
PyTorch's with its own: times are ratios to these, on one core.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from lib import harness

import numpy as np

import ddbp
from layers import (
    LayerNorm,
    Linear,
    Recompute,
    ReLU,
    Residual,
    Sequential,
    SoftmaxCrossEntropy,
    init,
    models,
)

SHARES = (0.5, 0.25, 0.1)
"""Budgets, of what an ordinary step takes."""


class Network(NamedTuple):
    """A network, the samples of a batch, and how many segments it is cut into."""

    make: Callable[[np.random.Generator], Sequential]
    x: tuple[int, ...]
    tokens: int
    segments: int


def residual(rng: np.random.Generator) -> Sequential:
    """Return 64 residual layers of 256 features."""
    blocks = [
        Residual(
            Sequential(
                LayerNorm(256), Linear(256, 256, rng=rng, weight_init=init.normal(0.02)), ReLU()
            )
        )
        for _ in range(64)
    ]
    return Sequential(*blocks, Linear(256, 10, rng=rng))


NETWORKS = {
    "residual MLP, 64 layers": Network(residual, (512, 256), 0, 8),
    "ResNet-56": Network(lambda rng: models.resnet56(rng), (32, 32, 32, 3), 0, 6),
    "Transformer, 24 layers": Network(
        lambda rng: models.gpt(rng, 96, context=64, features=128, depth=24, heads=4), (8, 64), 96, 5
    ),
}


def in_segments(model: Sequential, count: int) -> Sequential:
    """Return a model whose layers are cut into segments, all but the last computed again."""
    *parts, last = np.array_split(np.arange(len(model._steps)), count)
    steps = [Recompute(Sequential(*(model._steps[i] for i in part), fuse=False)) for part in parts]
    return Sequential(*steps, *(model._steps[i] for i in last), fuse=False)


class Contestant(NamedTuple):
    """A step, and what it takes."""

    step: Callable[[], Any]
    trainer: ddbp.Trainer


def ours(network: Network, *, memory: int | None = None, segments: int = 0) -> Contestant:
    """Return a step of a trainer."""
    model = network.make(np.random.default_rng(0))
    model = in_segments(model, segments) if segments else model
    trainer = ddbp.Trainer(
        model,
        loss=SoftmaxCrossEntropy(),
        optimizer=ddbp.SGD(1e-6),
        batch_size=network.x[0],
        shards=1,
        memory=memory,
        quiet=True,
    )
    batches = itertools.cycle(data_of(network))
    return Contestant(lambda: trainer.train_step(*next(batches)), trainer)


def data_of(network: Network) -> list[tuple[Any, Any]]:
    """Return some batches."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(4):
        if network.tokens:
            x = rng.integers(0, network.tokens, network.x)
            found.append((x, rng.integers(0, network.tokens, network.x)))
        else:
            x = rng.standard_normal(network.x).astype(np.float32)
            found.append((x, rng.integers(0, 10, network.x[0])))
    return found


def torch_links(name: str) -> list[Any]:
    """Return the layers of the same network in PyTorch, without its dropouts and masks."""
    import torch
    from torch import nn

    class Sum(nn.Module):
        def __init__(self, body: Any, shortcut: Any = None, last: Any = None) -> None:
            super().__init__()
            self.body, self.shortcut = body, shortcut or nn.Identity()
            self.last = last or nn.Identity()

        def forward(self, x: Any) -> Any:
            return self.last(self.body(x) + self.shortcut(x))

    def conv(inputs: int, outputs: int, stride: int) -> list[Any]:
        return [
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]

    torch.manual_seed(0)
    if name.startswith("residual"):
        blocks = [
            Sum(nn.Sequential(nn.LayerNorm(256), nn.Linear(256, 256), nn.ReLU())) for _ in range(64)
        ]
        return [*blocks, nn.Linear(256, 10)]
    if name.startswith("ResNet"):
        stack: list[Any] = [nn.Sequential(*conv(3, 16, 1), nn.ReLU())]
        width = 16
        for outputs in (16, 32, 64):
            for number in range(9):
                stride = 2 if number == 0 and outputs > 16 else 1
                body = nn.Sequential(
                    *conv(width, outputs, stride), nn.ReLU(), *conv(outputs, outputs, 1)
                )
                shortcut = nn.Conv2d(width, outputs, 1, stride) if stride > 1 else None
                stack.append(Sum(body, shortcut, nn.ReLU()))
                width = outputs
        return [*stack, nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))]
    layers = [
        nn.TransformerEncoderLayer(
            128, 4, 512, 0.0, nn.functional.gelu, batch_first=True, norm_first=True
        )
        for _ in range(24)
    ]
    return [nn.Embedding(96, 128), *layers, nn.Sequential(nn.LayerNorm(128), nn.Linear(128, 96))]


def theirs(name: str, rounds: int) -> dict[str, Any]:
    """Count and time PyTorch's steps, and those with its checkpoints."""
    import torch
    from torch.utils.checkpoint import checkpoint_sequential

    torch.set_num_threads(harness.THREADS)
    network, links = NETWORKS[name], torch_links(name)
    model = torch.nn.Sequential(*links)
    parameters = {each.untyped_storage().data_ptr() for each in model.parameters()}
    x, y = (torch.tensor(each) for each in data_of(network)[0])
    if name.startswith("ResNet"):
        x = x.permute(0, 3, 1, 2).contiguous()

    def loss_of(output: Any) -> Any:
        output = output.reshape(-1, output.shape[-1])
        return torch.nn.functional.cross_entropy(output, y.reshape(-1))

    def saved(forward: Callable[[], Any]) -> tuple[int, Any]:
        found: dict[int, int] = {}

        def pack(tensor: Any) -> Any:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                found[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = forward()
        return sum(found.values()), result

    def checkpointed() -> Any:
        return checkpoint_sequential(links, network.segments, x, use_reentrant=False)

    def step(forward: Callable[[], Any]) -> None:
        for parameter in model.parameters():
            parameter.grad = None
        loss_of(forward()).backward()

    ordinary, _ = saved(lambda: loss_of(model(x)))
    # Checkpoints keep inputs of segments, which the hooks are not told of.
    size, h, segments = len(links) // network.segments, x, []
    kept = 0
    for number in range(network.segments):
        stop = (number + 1) * size if number < network.segments - 1 else len(links)
        part = torch.nn.Sequential(*links[number * size : stop])
        given = h.detach()
        if given.is_floating_point():
            given.requires_grad_()
        kept += given.untyped_storage().nbytes()
        inside, h = saved(lambda part=part, given=given: part(given))
        segments.append(inside)
    ways = {"ordinary": lambda: step(lambda: model(x)), "segments": lambda: step(checkpointed)}
    times = harness.interleaved(ways, rounds)
    return {
        "ordinary": {"bytes": ordinary},
        "segments": {
            "bytes": kept + max(segments),
            "of_ordinary": round((kept + max(segments)) / ordinary, 3),
            "times_ordinary": harness.ratio(times["segments"], times["ordinary"]),
        },
    }


def row(name: str, rounds: int) -> dict[str, Any]:
    """Count and time the ways of a network."""
    network = NETWORKS[name]
    ordinary = ours(network)
    for _ in range(3):
        ordinary.step()
    held = ordinary.trainer._workspace.nbytes
    ways = {"segments": ours(network, segments=network.segments)}
    ways |= {f"{share:.0%}": ours(network, memory=int(share * held)) for share in SHARES}
    found = {"ordinary": {"bytes": held}}
    for way, each in ways.items():
        try:
            for _ in range(3):
                each.step()
        except ValueError as error:
            # No plan takes so little.
            print(name, way, error, flush=True)
            continue
        times = harness.interleaved({"ordinary": ordinary.step, way: each.step}, rounds)
        facts = each.trainer._memory.facts or {}
        found[way] = {
            "bytes": each.trainer._workspace.nbytes,
            "of_ordinary": round(each.trainer._workspace.nbytes / held, 3),
            "ms": harness.spread(times[way]),
            "times_ordinary": harness.ratio(times[way], times["ordinary"]),
            **{key: facts.get(key) for key in ("predicted", "layers_again", "forward_again")},
        }
        print(name, way, found[way]["of_ordinary"], found[way]["times_ordinary"], flush=True)
    others = theirs(name, rounds)
    print(name, "PyTorch", others["segments"], flush=True)
    return {"name": name, "ours": found, "torch": others}


def main() -> None:
    """Count, time, print and write."""
    parser = harness.arguments(str(__doc__).splitlines()[0], 11)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), help="(%(default)s)")
    options = parser.parse_args()
    facts = harness.machine()
    harness.pin_to_one_core()
    harness.write(options.json, facts, [row(name, options.rounds) for name in options.networks])


if __name__ == "__main__":
    main()
