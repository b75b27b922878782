"""Looking after the disk: where images are kept, moving them to a larger one and back, pruning."""
