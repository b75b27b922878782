"""What is pinned: base digests, Python requirements with hashes, hashed tools."""
