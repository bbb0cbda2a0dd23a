"""Normalisation of groups of channels, each sample by itself (Wu and He 2018, arXiv 1803.08494):
batch normalisation of one sample at a time (see `layers.kernels.batch_norm`) with numbers that the
channels of a group share.

`moments` (N, 1 + 2 C) and `sums` (N, 2 C) are those of samples, in float64.
"""

from .jit import kernel


@kernel
def share_moments(moments, size):
    """Writes for each channel the moments of its group, `size` channels, given those of the
    channels.

    The group's squared deviations are those of its channels and of their means from its own (Chan,
    Golub and LeVeque 1983, eq. 2.1, of equal parts).
    """
    channels = moments.shape[1] // 2
    for n in range(len(moments)):
        count, means, squares = moments[n, 0], moments[n, 1:], moments[n, 1 + channels :]
        for first in range(0, channels, size):
            mean, total = 0.0, 0.0
            for c in range(first, first + size):
                mean += means[c]
            mean /= size
            for c in range(first, first + size):
                apart = means[c] - mean
                total += squares[c] + count * apart * apart
            for c in range(first, first + size):
                means[c] = mean
                squares[c] = total
        moments[n, 0] = count * size


@kernel
def share_sums(sums, feedback, size):
    """Writes for each channel the sums of g dz and of g dz (x - mean) over its group, given those
    of dz and of dz (x - mean) of the channels. feedback (C,) stands for g; empty: 1.
    """
    channels = sums.shape[1] // 2
    for n in range(len(sums)):
        for start in (0, channels):
            for first in range(start, start + channels, size):
                total = 0.0
                for c in range(first, first + size):
                    total += sums[n, c] * feedback[c - start] if feedback.size else sums[n, c]
                for c in range(first, first + size):
                    sums[n, c] = total
