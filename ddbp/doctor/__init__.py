"""What is wrong with a training run: findings with cause, evidence and the one change to try."""
