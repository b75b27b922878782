"""Compile DeepSpeed's FusedAdam kernel as its first use would, without a GPU; print what lacks.

    PYTHON fused_adam.py CUDA_HOME

Prints JSON: `missing`, headers that no folder has; `output`, what the compiler said last, empty
where it compiled. DeepSpeed itself compiles no kernel where it sees no GPU
(deepspeedai/DeepSpeed:op_builder/builder.py, build_for_cpu), so nvcc is called here.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

_ARCHITECTURE = "80"  # of the GPU: the oldest that all supported toolkits know
_MOST_HEADERS = 40
_NO_HEADER = re.compile(r"([\w./+-]+): No such file or directory")


def compile_command(cuda_home: str, folder: Path) -> "list[str]":
    """nvcc with the sources and folders that DeepSpeed names; folder takes what it writes."""
    # Without a GPU DeepSpeed takes the CPU for its accelerator, whose FusedAdam has no kernel.
    os.environ["DS_ACCELERATOR"] = "cuda"
    from deepspeed.ops.op_builder import FusedAdamBuilder
    from torch.utils import cpp_extension

    builder = FusedAdamBuilder()
    (source,) = [path for path in builder.sources() if path.endswith(".cu")]
    includes = [str(builder.deepspeed_src_path(path)) for path in builder.include_paths()]
    includes += [*cpp_extension.include_paths(), f"{cuda_home}/include"]
    includes += [sysconfig.get_paths()["include"], str(folder / "stubs")]
    command = [f"{cuda_home}/bin/nvcc", str(builder.deepspeed_src_path(source)), "-std=c++17"]
    command += [flag for path in includes for flag in ("-I", path)]
    command += ["-DTORCH_EXTENSION_NAME=fused_adam", "-DBF16_AVAILABLE", "--expt-relaxed-constexpr"]
    return [*command, "-gencode", f"arch=compute_{_ARCHITECTURE},code=sm_{_ARCHITECTURE}"]


def missing_headers(command: "list[str]", folder: Path) -> "list[str]":
    """Every header that lacks: an empty one takes the place of each, so that the next is named."""
    missing: list[str] = []
    while len(missing) < _MOST_HEADERS:
        done = subprocess.run(
            [*command, "-E", "-o", str(folder / "preprocessed")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        names = [name for name in _NO_HEADER.findall(done.stdout) if name not in missing]
        if done.returncode == 0 or not names:
            break
        for name in dict.fromkeys(names):
            missing.append(name)
            stub = folder / "stubs" / name
            stub.parent.mkdir(parents=True, exist_ok=True)
            stub.touch()
    return missing


def main() -> None:
    """Print the result as JSON."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "stubs").mkdir()
        with redirect_stdout(sys.stderr):  # libraries talk while they are imported
            command = compile_command(sys.argv[1], folder)
        missing = missing_headers(command, folder)
        output = ""
        if not missing:
            done = subprocess.run(
                [*command, "-Xcompiler", "-fPIC", "-c", "-o", str(folder / "object")],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            output = done.stdout[-2000:] if done.returncode else ""
            if done.returncode and not output:
                output = f"nvcc ended with {done.returncode}"
        print(json.dumps({"missing": missing, "output": output}))


if __name__ == "__main__":
    main()
