"""The error that a person can cure."""

from __future__ import annotations


class ExampleError(Exception):
    """What is wrong and what to do. The launcher puts the text into /opt/ml/output/failure."""
