"""Losses: what a prediction is compared with its target by."""
