"""Further runs of backward that the gradient check makes: again, in between, and with the batch cut
in shards.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from layers.types import Array

from .probe import FLOOR
from .report import NONDETERMINISTIC, WRONG, BlockReport, GradientReport

if TYPE_CHECKING:
    from .subject import Subject


@dataclass
class Findings:
    """What runs of backward have shown about blocks, before the numbers are compared."""

    report: GradientReport
    verdicts: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, name: str, verdict: str, text: str) -> None:
        self.verdicts.setdefault(name, (verdict, text))

    def apply(self, block: BlockReport) -> None:
        if block.name in self.verdicts and block.verdict != WRONG:
            block.verdict, block.hint = self.verdicts[block.name]


def check_runs(
    subject: "Subject", y: Array, cotangent: Array, gradients: dict[str, Array], findings: Findings
) -> None:
    """Run backward three more times: on spoiled buffers, without zeroing, and with another forward
    pass in between.
    """
    faults = findings.report.faults
    inputs = [np.array(x) if isinstance(x, np.ndarray) else None for x in subject.inputs]

    subject.workspace.spoil()
    subject.zero()
    arguments, again = subject.record(subject.workspace)
    if again.array.tobytes() != y.tobytes():
        faults.append(
            "the output differs between two runs: a random number, or a buffer that is read before"
            " it is written"
        )
    second = subject.backward(arguments, again, cotangent)
    for name, gradient in gradients.items():
        if second[name].tobytes() != gradient.tobytes():
            text = (
                "backward gives other bits on a second run: a random number, or a buffer that is"
                " read before it is written"
            )
            findings.add(name, NONDETERMINISTIC, text)

    third = subject.backward(arguments, again, cotangent)
    for name, gradient in gradients.items():
        times = 2 if name in subject.parameters else 1
        if not _close(third[name], times * gradient):
            text = (
                "a second backward pass on the same tape gives another gradient: what was saved is"
                " written to"
            )
            if times == 2:
                text = (
                    "a second backward pass does not add to the gradient: it overwrites or"
                    " zeroes it"
                )
            findings.add(name, WRONG, text)

    subject.zero()
    arguments, again = subject.record()
    with _moved(subject):
        subject.record()
    for name, gradient in subject.backward(arguments, again, cotangent).items():
        if not _close(gradient, gradients[name]):
            text = (
                "another forward pass before backward changes the gradient: keep with call.save(…),"
                " not on the layer"
            )
            findings.add(name, WRONG, text)

    if not subject.dy_kept:
        faults.append("backward writes into dy, which belongs to the caller")
    for i, (x, before) in enumerate(zip(subject.inputs, inputs, strict=True)):
        if before is not None and x.tobytes() != before.tobytes():
            faults.append(f"input {i} is written to")
            x[...] = before


@contextmanager
def _moved(subject: "Subject") -> Iterator[None]:
    """Move the floating inputs for a while."""
    kept = {i: subject.inputs[i].copy() for i in subject.free}
    for i, x in kept.items():
        subject.inputs[i] = x * 1.01
    try:
        yield
    finally:
        for i, x in kept.items():
            subject.inputs[i] = x


def check_outputs(
    subject: "Subject", cotangent: Array, gradients: dict[str, Array], findings: Findings
) -> None:
    """Propagate each of several outputs alone, so that backward gets None for the others: the
    gradients must add up.
    """
    sums = {name: np.zeros_like(gradient) for name, gradient in gradients.items()}
    sizes = {name: float(np.abs(gradient).max(initial=0)) for name, gradient in gradients.items()}
    starts = np.cumsum([0, *subject.widths])
    for number, (start, stop) in enumerate(pairwise(starts)):
        subject.only = number
        subject.zero()
        arguments, y = subject.record()
        for name, gradient in subject.backward(
            arguments, y, np.ascontiguousarray(cotangent[:, start:stop])
        ).items():
            sums[name] += gradient
            sizes[name] += float(np.abs(gradient).max(initial=0))
    subject.only = None
    for name, gradient in gradients.items():
        if not np.all(np.abs(sums[name] - gradient) <= FLOOR * sizes[name]):
            text = (
                "the gradients by way of each output alone do not add up to that of all: what does"
                " backward do where a dy is None?"
            )
            findings.add(name, WRONG, text)


def check_shards(
    subject: "Subject", y: Array, cotangent: Array, gradients: dict[str, Array], findings: Findings
) -> None:
    """Cut the batch in two shards: their gradients must add up, and each must come from its own
    rows alone.
    """
    samples, notes = subject.samples, findings.report.notes
    if samples < 2 or not (subject.parameters or subject.states):
        return
    cut = (samples + 1) // 3
    batched = [
        f"input {i}"
        for i in subject.free
        if subject.inputs[i].ndim and len(subject.inputs[i]) == samples
    ]

    def run(dy: Array) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        subject.zero()
        arguments, again = subject.record(shards=(0, cut, samples))
        found = subject.backward(arguments, again, dy)
        return (
            again.array,
            found,
            {
                n: p.gradients.copy()
                for n, p in subject.parameters.items()
                if p.gradients is not None and p.trainable
            },
        )

    try:
        y_cut, whole, of_shards = run(cotangent)
        scattered = y.ndim == 0 or len(y) % samples != 0
        if not _close(y_cut, y):
            if scattered:
                notes.append(
                    "the output depends on how the batch is cut, but does not show the samples:"
                    " shards were not checked"
                )
                return
            own = {name: parts for name, parts in whole.items() if name in batched}
            _check_shards_alone(
                subject,
                (slice(0, cut), slice(cut, samples)),
                y_cut,
                cotangent,
                own,
                of_shards,
                findings,
            )
            return
        for name, gradient in gradients.items():
            if not _close(whole[name], gradient):
                text = (
                    "their gradients do not add up to the whole"
                    if name in of_shards
                    else "its gradient changes"
                )
                findings.add(name, WRONG, f"with the batch cut in two shards, {text}")
        if scattered:
            return
        rows = np.arange(len(y)) < cut * (len(y) // samples)
        for shard, own_rows in enumerate((rows, ~rows)):
            _, found, of_shards = run(
                np.where(own_rows.reshape(-1, *(1,) * (y.ndim - 1)), cotangent, 0)
            )
            foreign = slice(cut, None) if shard == 0 else slice(0, cut)
            if any(found[name][foreign].any() for name in batched):
                notes.append("samples depend on each other: shards were checked only for their sum")
                return
            for name, parts in of_shards.items():
                if parts[1 - shard].any():
                    text = (
                        f"rows of shard {shard} add to the gradient of shard {1 - shard}: use"
                        " call.shards(…) or call.bounds(…)"
                    )
                    findings.add(name, WRONG, text)
    except ValueError as error:
        notes.append(f"the batch cannot be cut in shards: {error}")
    finally:
        subject.zero()


def _check_shards_alone(
    subject: "Subject",
    cuts: tuple[slice, ...],
    y: Array,
    cotangent: Array,
    of_inputs: dict[str, Array],
    of_shards: dict[str, Array],
    findings: Findings,
) -> None:
    """Run each shard as a batch of its own: output and gradients must be those that it had beside
    the other.
    """
    positions = len(y) // subject.samples
    for shard, rows in enumerate(cuts):
        subject.zero()
        arguments, alone = subject.record(rows=rows)
        part = slice(rows.start * positions, rows.stop * positions)
        if not _close(alone.array, y[part]):
            findings.report.faults.append(
                "with the batch cut in two shards, the output is that of neither the whole nor the"
                " shards"
            )
            return
        found = subject.backward(arguments, alone, cotangent[part])
        beside = {name: gradient[rows] for name, gradient in of_inputs.items()}
        beside |= {name: parts[shard] for name, parts in of_shards.items()}
        for name, gradient in beside.items():
            if not _close(found[name], gradient):
                findings.add(
                    name,
                    WRONG,
                    "with the batch cut in two shards, the gradient of a shard is not that of the"
                    " shard alone",
                )


def _close(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(
        np.all(np.abs(a - b) <= FLOOR * max(np.abs(a).max(initial=0), np.abs(b).max(initial=0)))
    )
