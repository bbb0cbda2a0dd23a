"""Disturbances of training, drawn from a seed: where they come, how they are made, and what came
of them.
"""
