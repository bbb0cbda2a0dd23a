"""Ranks that are processes of this one: what they are given, and how they end."""
