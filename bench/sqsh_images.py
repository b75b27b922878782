"""The images of `bench.sqsh_export`: shaped like a training DLC, with a small layer that differs.

The default image (python, torch, DeepSpeed; `./inv build` first) gets what a training DLC has
beside them: the packages below with their bytecode, in one layer. Each further image differs from
that in a layer of 200 small source files.
"""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from slipway.engine import Engine

_PYTHON = "3.11"
_SITE = "/usr/local/lib/python3.11/dist-packages"
_DEFAULT = "sagemaker-slipway/local"

PACKAGES = """
scipy scikit-learn pandas numba opencv-python-headless seaborn bokeh plotly shap spacy transformers
datasets accelerate peft pyarrow boto3 awscli sagemaker imageio h5py tensorboard onnx matplotlib
jupyterlab sentencepiece s3fs dask distributed xgboost lightgbm statsmodels sympy networkx nltk
gensim polars ray jax duckdb gradio streamlit
"""
"""Most are in the training DLCs; their image definitions list them."""

_IN_THE_BASE = ("torch", "torchgen", "functorch", "triton", "nvidia", "cuda")


def make(engine: Engine, work: Path, count: int) -> list[str]:
    """Make `count` images that share all but the top layer; their references."""
    bases = engine.client.images.list(_DEFAULT)
    if not bases:
        raise SystemExit("the default image is not in this engine: ./inv build")
    friends = work / "friends"
    if not friends.is_dir():
        _install(friends)
    shared = _commit(engine, str(bases[0].id), f"{_SITE}/", _tree(friends), "bench/dlc:shared")
    references = (f"bench/dlc:{number}" for number in range(count))
    return [
        _commit(engine, shared, "/opt/", _code(number), reference)
        for number, reference in enumerate(references)
    ]


def _install(folder: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    beside = folder.with_suffix(".partial")
    shutil.rmtree(beside, ignore_errors=True)
    command = [str(uv), "pip", "install", "--quiet", "--no-build", "--python-version", _PYTHON]
    subprocess.run([*command, "--target", str(beside), *PACKAGES.split()], check=True)
    for path in beside.iterdir():
        if path.name.partition("_")[0].partition("-")[0] in _IN_THE_BASE:
            shutil.rmtree(path)
    # Exits with 1 for files that are templates of Python code.
    compile_all = [sys.executable, "-m", "compileall", "-q", "-j", "2", str(beside)]
    subprocess.run(compile_all, check=False, stdout=subprocess.DEVNULL)
    beside.rename(folder)


def _tree(folder: Path) -> Iterator[bytes]:
    tar = subprocess.Popen(["tar", "-c", "-C", str(folder), "."], stdout=subprocess.PIPE)
    assert tar.stdout is not None
    with tar.stdout:
        yield from iter(lambda: tar.stdout.read(1 << 20) if tar.stdout else b"", b"")
    assert tar.wait() == 0


def _code(seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for number in range(200):
            text = "\n".join(f"x{n} = {rng.random()}" for n in range(400)).encode()
            entry = tarfile.TarInfo(f"code/module{number}.py")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    yield packed.getvalue()


def _commit(engine: Engine, base: str, into: str, tar: Iterator[bytes], reference: str) -> str:
    api = engine.client.api
    container = api.create_container(base, ["none"], network_disabled=True)["Id"]
    try:
        api.put_archive(container, into, tar)
        repository, _, tag = reference.partition(":")
        api.commit(container, repository, tag)
    finally:
        api.remove_container(container)
    return reference
