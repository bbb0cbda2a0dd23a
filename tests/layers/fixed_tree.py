"""The fixed tree, slow and obvious."""


def split(shards):
    """Return how many shards stand left of the root: the largest power of two below their
    number.
    """
    return 1 << ((shards - 1).bit_length() - 1)


def tree(parts):
    """Return the sum of a list of arrays by the fixed tree over their numbers."""
    if len(parts) == 1:
        return parts[0]
    return tree(parts[: split(len(parts))]) + tree(parts[split(len(parts)) :])
