"""The trainer, and what a run is made of."""
