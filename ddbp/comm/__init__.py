"""Ranks: who they are, how they meet, and how a job ends when one of them does."""
