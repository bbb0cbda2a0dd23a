"""From shard gradients to updated parameters: who owns what, in which order it is summed, how it
travels.
"""
