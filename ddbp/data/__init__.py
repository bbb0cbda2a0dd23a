"""Data, and what is done with samples on their way to a model."""
