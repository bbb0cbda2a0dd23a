"""The problems that scripts solve, where they are made rather than read."""
