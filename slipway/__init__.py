"""Slipway turns a version matrix into tested, pushed, cluster-ready GPU training images."""

__version__ = "0.1.0"
