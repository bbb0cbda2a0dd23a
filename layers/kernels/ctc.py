"""Connectionist temporal classification: the forward-backward algorithm in logarithms, in float64.

Graves, Fernández, Gomez, Schmidhuber, "Connectionist temporal classification: labelling unsegmented
sequence data with recurrent neural networks", ICML 2006. A sequence of L labels has 2 L + 1 states:
blank, label, blank, label, …, blank. Each frame is in one; from one to the next a path stays, goes
on, or leaves a blank out between two labels that differ.
"""

import numpy as np

from .elementary import log_parts
from .jit import inlined, kernel
from .llvm.vmath import exp, number
from .softmax import ROWS, exponentials

# The logarithm of 0, and less than what can come of any path.
NEVER = -1e30
IMPOSSIBLE = -1e29
# Columns in front of the states, that no path is in.
AHEAD = 2


@inlined
def _log_sum(a, b, c):
    """Return log(e^a + e^b + e^c)."""
    higher, lower = max(a, b), min(a, b)
    greatest, least = max(higher, c), min(lower, c)
    middle = max(lower, min(higher, c))
    return greatest + log_parts(1.0 + exp(middle - greatest) + exp(least - greatest))[0]


@inlined
def _log_sums(to, stayed, gone_on, skipped, skips):
    """Write the logarithm of what comes to each state in the three ways; all (2 L + 1,)."""
    for s in range(to.size):
        to[s] = _log_sum(stayed[s], gone_on[s], skipped[s] + skips[s])


@kernel
def ctc(losses, dx, logits, frames, labels, counts, blank, emitted, forward, backward):
    """Writes the losses -log p(labels) of samples and their gradients p_tk - sum of the posterior
    probabilities of the states of label k in frame t, 0 from frame `frames` on.

    losses, frames, counts (N,), dx, logits (N, T, C), labels (N, L), of which `counts` are there;
    emitted, forward (T, AHEAD + 2 L + 1) and backward (3, 2 L + 1 + AHEAD) are scratch memory in
    float64. The loss is inf, with a gradient of 0, where no path is possible, and NaN where a label
    is no class or `blank`, or a logit is NaN.
    """
    classes = logits.shape[2]
    highest, totals = np.empty(ROWS, dx.dtype), np.empty(ROWS, dx.dtype)
    for n in range(len(losses)):
        last, states = frames[n], 2 * counts[n] + 1
        right = True
        for k in range(counts[n]):
            label = labels[n, k]
            right = right and 0 <= label < classes and label != blank
        if not right:
            losses[n] = np.nan
            continue
        dx[n, last:] = 0
        end = AHEAD + states
        following, now, skips = backward[0], backward[1], backward[2]
        # Into a label from the one before, and NEVER from an equal one or into a blank.
        for s in range(states + AHEAD):
            skips[s] = NEVER
        for k in range(1, counts[n]):
            if labels[n, k] != labels[n, k - 1]:
                skips[2 * k + 1] = 0.0
        whole = True
        for start in range(0, last, ROWS):
            stop = min(start + ROWS, last)
            exponentials(dx[n, start:stop], highest, totals, logits[n, start:stop])
            for t in range(start, stop):
                whole = whole and not np.isnan(totals[t - start])
                e, log_total = emitted[t], log_parts(np.float64(totals[t - start]))[0]
                for s in range(states):
                    label = labels[n, s // 2] if s % 2 else blank
                    of = np.float64(logits[n, t, label]) - np.float64(highest[t - start])
                    of -= log_total
                    e[AHEAD + s] = NEVER if of < NEVER else of
                share = number(dx, 1.0) / totals[t - start]
                for k in range(classes):
                    dx[n, t, k] *= share
        if not whole:
            losses[n] = np.nan
            dx[n, :last] = np.nan
            continue
        for t in range(last):
            a, e = forward[t], emitted[t]
            a[0] = NEVER
            a[1] = NEVER
            if t == 0:
                for s in range(AHEAD, end):
                    a[s] = e[s] if s < AHEAD + 2 else NEVER
            else:
                to, before = a[AHEAD:end], forward[t - 1]
                _log_sums(to, before[AHEAD:end], before[1 : end - 1], before[: end - 2], skips)
                of = e[AHEAD:end]
                for s in range(states):
                    to[s] += of[s]
        log_p = 0.0 if states == 1 and last == 0 else NEVER
        if last > 0:
            a = forward[last - 1]
            log_p = _log_sum(a[end - 1], a[end - 2], NEVER)
        if log_p < IMPOSSIBLE:
            losses[n] = np.inf
            dx[n, :last] = 0
            continue
        losses[n] = -log_p
        for s in range(states + AHEAD):
            following[s] = 0.0 if s == states - 1 or s == states - 2 else NEVER
        for t in range(last - 1, -1, -1):
            a, e = forward[t, AHEAD:end], emitted[t, AHEAD:end]
            for s in range(states):
                now[s] = exp(a[s] + following[s] - log_p)
            for s in range(states):
                label = labels[n, s // 2] if s % 2 else blank
                dx[n, t, label] -= number(dx, now[s])
            for s in range(states):
                following[s] += e[s]
            after = following[1 : states + 1], following[2 : states + 2]
            _log_sums(now[:states], following[:states], after[0], after[1], skips[2:])
            for s in range(states):
                following[s] = now[s]
