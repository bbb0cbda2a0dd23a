"""The loss of sequences whose labels have no place in time."""

from typing import Any

import numpy as np

from layers.checks import boolean, integer, non_negative_int, require_input
from layers.engine.forward_call import ForwardCall
from layers.engine.layer import Layer
from layers.engine.memory import contiguous
from layers.errors import message
from layers.kernels import ctc
from layers.types import Array, Integers

from .base import RowLoss


class CTC(RowLoss):
    """Connectionist temporal classification: -log of the probability that frames, of which each
    says a label or nothing, say the labels of a sequence. Backward: dx = softmax(x) - the
    probability of each label in each frame, given the sequence.

    Graves et al., "Connectionist temporal classification: labelling unsegmented sequence data with
    recurrent neural networks", ICML 2006.

    Parameters
    ----------
    blank
        The class that says nothing.
    padding
        What stands in the targets after the last label of a sequence.
    per_label
        Whether the loss of a sequence is divided by the number of its labels, as PyTorch's mean is.
    zero_infinity
        Whether a sequence that its frames cannot say counts as 0; otherwise it is refused.

    Notes
    -----
    Called with logits (N, T, C), or with (logits, lengths) for them where not all T frames are
    there: lengths (N,), in 0..T. The targets are integer labels (N, L); a sequence that repeats a
    label needs a frame between the two. Weights are of samples (N,), or of labels (N, L), 0 after
    the last one: then a sample weighs what its first label does.
    """

    analytic = False

    def __init__(
        self,
        blank: int = 0,
        padding: int = -1,
        per_label: bool = False,
        zero_infinity: bool = False,
    ) -> None:
        self.blank = non_negative_int("CTC", "blank", blank, "0 is usual.")
        self.padding = integer("CTC", "padding", padding, "-1 is usual.")
        self.per_label = boolean(type(self).__name__, "per_label", per_label)
        self.zero_infinity = boolean(type(self).__name__, "zero_infinity", zero_infinity)

    def __repr__(self) -> str:
        options = [f"blank={self.blank}"]
        options += [f"padding={self.padding}"] if self.padding != -1 else []
        options += [f"{name}=True" for name in ("per_label", "zero_infinity") if vars(self)[name]]
        return f"CTC({', '.join(options)})"

    def __call__(self, prediction: Any, targets: Any, weights: Any = None) -> Any:
        parts = prediction if isinstance(prediction, tuple) else (prediction, None)
        return Layer.__call__(self, *parts, targets, weights)

    def forward(
        self, call: ForwardCall, logits: Array, lengths: Any, targets: Any, weights: Any
    ) -> Array:
        require_input(self, logits, ("N", "T", "C"))
        samples, steps, classes = logits.shape
        if self.blank >= classes:
            must = f"logits must be of more than {self.blank} classes, as that is the blank one"
            raise ValueError(message(self, must, classes, "Give the last layer one output more."))
        frames = self._lengths(lengths, samples, steps)
        labels = np.asarray(targets)
        if labels.dtype.kind not in "iu" or labels.ndim != 2 or len(labels) != samples:
            must = f"targets must be integer labels ({samples}, L)"
            fix = f"Pad them with {self.padding} to one length."
            raise ValueError(message(self, must, f"{labels.shape} of {labels.dtype}", fix))
        counts, of_samples = self._counts(labels, weights)
        x = contiguous(logits)
        most = 2 * labels.shape[1] + 1
        emitted, forward, backward = call.scratch(
            np.float64,
            (steps, ctc.AHEAD + most),
            (steps, ctc.AHEAD + most),
            (3, ctc.AHEAD + most),
        )
        losses = call.buffer("losses", (samples, 1), x.dtype)
        dx = call.buffer("dx", x.shape, x.dtype)
        y = contiguous(labels.astype(np.int64, copy=False))
        ctc.ctc(losses[:, 0], dx, x, frames, y, counts, self.blank, emitted, forward, backward)
        self._require_possible(losses[:, 0], frames, y, counts, classes)
        if self.per_label:
            share = 1 / np.maximum(counts, 1).astype(x.dtype)
            losses *= share[:, np.newaxis]
            dx *= share[:, np.newaxis, np.newaxis]
        weighing = self.row_weights(call, of_samples, (samples,), x)
        return self.of_rows(call, losses, (dx,), samples, weighing)

    def _lengths(self, lengths: Any, samples: int, steps: int) -> Integers:
        """Return how many frames of each sample are there."""
        if lengths is None:
            return np.full(samples, steps, np.int64)
        frames = np.asarray(lengths)
        right = frames.shape == (samples,) and frames.dtype.kind in "iu"
        if not right or (samples and not (frames.min() >= 0 and frames.max() <= steps)):
            must = f"lengths must be integers ({samples},) in 0..{steps}"
            got = f"{frames.shape} of {frames.dtype}"
            got += f", {frames.min()} to {frames.max()}" if frames.size else ""
            raise ValueError(message(self, must, got, "They count the frames of each sample."))
        return frames.astype(np.int64)

    def _counts(self, labels: Array, weights: Any) -> tuple[Integers, Any]:
        """Return how many labels of each sample are there, and the weights of samples."""
        there = labels != self.padding
        if weights is not None and np.ndim(weights) == 2:
            weights = np.asarray(weights)
            if weights.shape != labels.shape:
                must = f"weights must be of shape {labels.shape[:1]} or {labels.shape}"
                raise ValueError(message(self, must, weights.shape, "Leave them out for 1."))
            there &= weights != 0
            weights = weights[:, 0] if weights.shape[1] else None
        counts = there.sum(axis=1, dtype=np.int64)
        gaps = there != (np.arange(labels.shape[1]) < counts[:, np.newaxis])
        if gaps.any():
            row = int(np.argwhere(gaps)[0, 0])
            must = f"nothing but padding, {self.padding}, must follow padding"
            fix = "padding= says what stands after the last label."
            raise ValueError(message(self, must, f"{labels[row].tolist()} of sample {row}", fix))
        return counts, weights

    def _require_possible(
        self, losses: Array, frames: Integers, labels: Array, counts: Integers, classes: int
    ) -> None:
        """Refuse labels that are no classes, and sequences with too few frames; or count them as
        0.
        """
        if np.isfinite(losses).all():
            return
        there = np.arange(labels.shape[1]) < counts[:, np.newaxis]
        wrong = there & ((labels < 0) | (labels >= classes) | (labels == self.blank))
        if wrong.any():
            row, place = (int(i) for i in np.argwhere(wrong)[0])
            must = f"labels must be in 0..{classes - 1}, and not the blank {self.blank}"
            fix = f"Number them without it; {self.padding} stands after the last one."
            raise ValueError(message(self, must, f"{labels[row, place]} in sample {row}", fix))
        if self.zero_infinity:
            losses[np.isposinf(losses)] = 0
            return
        repeated = (labels[:, 1:] == labels[:, :-1]) & there[:, 1:]
        needed = counts + repeated.sum(axis=1)
        short = np.flatnonzero(needed > frames)
        if short.size:
            row = int(short[0])
            must = "a sequence must have a frame for each label, and one between equal ones"
            got = f"{frames[row]} frames for {counts[row]} labels of sample {row}"
            got += f", which need {needed[row]}" if needed[row] > counts[row] else ""
            fix = "Shorten the stride of the model, or pass zero_infinity=True to leave it out."
            raise ValueError(message(self, must, got, fix))
