"""`inv lock`: base digests, Python requirements with hashes, hashed tools; and the files they name."""
