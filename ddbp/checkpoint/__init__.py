"""Checkpoints: the state of training in files that are whole or not there."""
