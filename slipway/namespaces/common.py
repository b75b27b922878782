"""What the task modules share: the checkout, and the help of arguments that recur."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

NAMES = {"names": "image names or globs, e.g. 'pytorch-2.1*-sagemaker-*'; given as plain words"}
JSON = {"json": "machine-readable on stdout; text for people goes to stderr"}
REGION = {"region": "AWS region to take bases from and push to (default: the public mirror)"}
BUILD = {
    **REGION,
    "jobs": "builds at a time",
    "unlocked": "build also on bases that no lock pins",
}
TARGET = {"target": "registry to push to: local or ecr"}
SQSH = {
    "output": "folder for the .sqsh",
    "compression": "of the .sqsh: zstd-1 (default), zstd-LEVEL, gzip, lzo, lz4, xz or none",
    "force": "overwrite a .sqsh of another build, or of other options",
}
