"""Data: samples, data sets, and their order."""
