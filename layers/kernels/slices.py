"""Slices of flat arrays (R C,): so many whole rows of C channels that inner loops are long whatever
C is. What belongs to channels is repeated for the rows of a slice, and sums of a slice are folded
to sums of channels.
"""

from .jit import inlined

# Elements of a slice. Five arrays of this length, which the loops come back to, stay in the
# first-level cache.
LANES = 512


@inlined
def slice_width(channels, size):
    """Return how many elements a slice of an array of `size` elements has: whole rows, one at
    least.
    """
    return max(1, min(LANES // channels, size // channels)) * channels


@inlined
def repeat(array, channels):
    """Repeat the first `channels` elements in the rest of an array."""
    for start in range(channels, array.size, channels):
        for c in range(channels):
            array[start + c] = array[c]


@inlined
def fold(total, lanes):
    """Write the sum of a slice's rows; total (C,)."""
    total[:] = 0
    for start in range(0, lanes.size, total.size):
        for c in range(total.size):
            total[c] += lanes[start + c]
