"""What the examples share: options, ranks, progress, checkpoints, weights."""
