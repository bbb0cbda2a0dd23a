"""What the benchmarks share: how they measure, the steps that they time, the machine's peak."""
