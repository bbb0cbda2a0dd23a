"""Training steps of a workload by ours, PyTorch, JAX and scikit-learn, as functions without
arguments that return the loss.
"""

import itertools
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from workloads.workload import BATCHES, Workload

import ddbp
import layers
from layers.kernels.llvm.simd_bf16 import HAS_DOTS

Step = Callable[[], Any]
# Adam costs the same at every rate; with this one the thousands of steps of a benchmark leave the
# weights about where they were, so that no contestant meets the subnormal numbers of a network that
# has learnt its few batches by heart.
TIMING_RATE = 1e-7
CHECKING_RATE = 1e-4


def ours(
    workload: Workload,
    rate: float,
    shards: int | str = "ranks",
    parts: int = 1,
    callbacks: Sequence[layers.TapeHook] = (),
    **options: Any,
) -> Step:
    """Return our step: forward, backward, reduction and update by the trainer, with more of its
    options, on this rank's part of the batch.

    The batch is the first of so many parts of the workload's. Shards are one per rank unless said:
    peers have no fixed number of them.
    """
    batches = [
        tuple(array[: len(array) // parts] for array in batch) for batch in workload.batches()
    ]
    trainer = ddbp.Trainer(
        workload.start(),
        loss=workload.loss(),
        optimizer=ddbp.Adam(rate),
        batch_size=len(batches[0][0]),
        shards=shards,
        callbacks=callbacks,
        quiet=True,
        **options,
    )
    following = itertools.cycle(batches)
    return lambda: trainer.train_step(*next(following))


def _torch_module(workload: Workload) -> Any:
    import torch

    module = workload.torch_model()
    arrays = workload.to_torch([parameter.value for parameter in workload.start().parameters()])
    with torch.no_grad():
        for parameter, array in zip(module.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(np.array(array)))
    return module


def torch_variants(workload: Workload) -> list[str]:
    """Return what PyTorch is tried with: kinds of Adam, and for images memory formats (the axes in
    the order of memory).
    """
    kinds = ["foreach", "fused"]
    return (
        [f"{kind} {layout}" for kind in kinds for layout in ("NCHW", "NHWC")]
        if workload.images
        else kinds
    )


def torch_adam(
    workload: Workload,
    rate: float,
    variant: str,
    *,
    compiled: bool = False,
    autocast: bool = False,
    ranks: int = 1,
    rank: int = 0,
) -> Step:
    """Return PyTorch's step in one of its variants; with several ranks, DDP's; with `autocast` in
    bfloat16.
    """
    import torch

    kind, *layout = variant.split()
    form = torch.channels_last if layout == ["NHWC"] else torch.contiguous_format
    module = _torch_module(workload).to(memory_format=form)
    parameters = list(module.parameters())
    optimizer = torch.optim.Adam(parameters, lr=rate, **{kind: True})
    if ranks > 1:
        module = torch.nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=True)

    def forward(x: Any, y: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            prediction = module(x)
        return workload.torch_loss(prediction.float() if autocast else prediction, y)

    if compiled:
        # Else the variants count as recompilations of one function, whose number is limited.
        torch._dynamo.reset()
        forward = torch.compile(forward)
    batches = []
    for x, y in workload.batches():
        rows = slice(rank * len(x) // ranks, (rank + 1) * len(x) // ranks)
        batches.append(
            (
                workload.torch_x(torch.from_numpy(x)[rows]).contiguous(memory_format=form),
                torch.from_numpy(y)[rows],
            )
        )
    following = itertools.cycle(batches)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = forward(*next(following))
        loss.backward()
        optimizer.step()
        return loss

    return step


def jax_adam(workload: Workload, rate: float) -> Step:
    """Return the step of JAX and optax, compiled as a whole, its state donated."""
    import jax
    import optax

    optimizer = optax.adam(rate)
    loss_of = workload.jax_loss
    assert loss_of is not None

    def update(parameters: Any, state: Any, x: Any, y: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(parameters, x, y)
        changes, state = optimizer.update(gradients, state)
        return optax.apply_updates(parameters, changes), state, loss

    compiled = jax.jit(update, donate_argnums=(0, 1))
    arrays = workload.to_jax([parameter.value for parameter in workload.start().parameters()])
    parameters = [jax.numpy.array(array) for array in arrays]
    state = optimizer.init(parameters)
    following = itertools.cycle(
        [(jax.numpy.array(x), jax.numpy.array(y)) for x, y in workload.batches()]
    )

    def step() -> Any:
        nonlocal parameters, state
        parameters, state, loss = compiled(parameters, state, *next(following))
        return loss.block_until_ready()

    return step


def scikit_learn(workload: Workload, rate: float) -> Step:
    """Return a function that takes BATCHES steps of scikit-learn's classifier with Adam, one on
    each of the batches.
    """
    from sklearn.neural_network import MLPClassifier

    x, y = map(np.concatenate, zip(*workload.batches(), strict=True))
    arrays = [parameter.value for parameter in workload.start().parameters()]
    model = MLPClassifier(
        [len(bias) for bias in arrays[1:-1:2]],
        batch_size=len(x) // BATCHES,
        alpha=0,
        learning_rate_init=rate,
        shuffle=False,
    )
    model.partial_fit(x, y, classes=np.arange(len(arrays[-1])))
    for theirs, weight in zip(model.coefs_, arrays[::2], strict=True):
        theirs[:] = np.transpose(weight)
    for theirs, bias in zip(model.intercepts_, arrays[1::2], strict=True):
        theirs[:] = bias
    del model._optimizer  # Another begins with these weights.

    def step() -> float:
        model.partial_fit(x, y)
        return float(model.loss_)

    return step


PEERS = ("torch", "torch-compile", "torch-autocast", "jax", "scikit-learn")


def left_out(peer: str) -> str:
    """Return why a peer cannot run here, nothing if it can."""
    library = "sklearn" if peer == "scikit-learn" else peer.split("-")[0]
    if find_spec(library) is None:
        return f"{library} is not installed"
    if peer == "torch-compile" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "there is no C++ compiler"
    return ""


def all_of(workload: Workload, peers: list[str], rate: float) -> dict[str, Step]:
    """Return our step and those of the peers: PyTorch's eager ones in all variants, the others with
    the fused Adam; and with `torch-autocast` ours in bfloat16.
    """
    steps = {"ours": ours(workload, rate)}
    variants = torch_variants(workload)
    for peer in peers:
        if peer == "torch":
            steps |= {f"torch {each}": torch_adam(workload, rate, each) for each in variants}
        elif peer == "jax":
            steps |= {"jax": jax_adam(workload, rate)} if workload.jax_loss else {}
        elif peer == "scikit-learn":
            steps |= {peer: scikit_learn(workload, rate)} if workload.scikit_learn else {}
        else:
            chosen = {"compiled": peer == "torch-compile", "autocast": peer == "torch-autocast"}
            fused = [each for each in variants if each.startswith("fused")]
            steps |= {
                f"{peer} {each}": torch_adam(workload, rate, each, **chosen) for each in fused
            }
    if "torch-autocast" in peers:
        for name in ("bf16", *["bf16-dot"] * HAS_DOTS):
            steps[f"ours-bf16 {name}"] = ours(workload, rate, precision=name)
    return steps


def steps_per_call(name: str) -> int:
    """Return how many steps one call of a contestant takes."""
    return BATCHES if name == "scikit-learn" else 1


def in_bfloat16(name: str) -> bool:
    """Return whether the products of a contestant are in bfloat16."""
    return name.split()[0] in ("ours-bf16", "torch-autocast")


def _number(loss: Any) -> float:
    return float(loss if isinstance(loss, float) else loss.item())


def require_equal_work(workload: Workload, peers: list[str]) -> None:
    """Take a few steps with each contestant and compare the losses: a benchmark of unequal work
    proves nothing.
    """
    steps = all_of(workload, [peer for peer in peers if peer != "torch-compile"], CHECKING_RATE)
    losses = {
        name: [_number(step()) for _ in range(BATCHES // steps_per_call(name))]
        for name, step in steps.items()
    }
    for name, theirs in losses.items():
        wanted = np.mean(np.reshape(losses["ours"], (len(theirs), -1)), axis=1)
        if not np.allclose(theirs, wanted, rtol=5e-2 if in_bfloat16(name) else 2e-3):
            raise RuntimeError(
                f"{workload.name}: {name} does other work than ours; losses {theirs} and {wanted}"
            )
