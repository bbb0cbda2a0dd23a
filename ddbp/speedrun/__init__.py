"""Races: fixed tasks with fixed data and targets, and entries that others can reproduce."""
