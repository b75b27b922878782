"""Benchmarks: what the figures in docs/ come from."""
