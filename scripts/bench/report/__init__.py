"""Tables and pictures of README.md and the docs, made from the results in docs/results."""
