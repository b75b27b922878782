from __future__ import annotations

from packaging.version import Version
from testinfra.host import Host  # type: ignore[import-untyped]

from slipway.verify.findings import Distributions
from slipway.verify.plugin import RunPython

SAFE = Version("5.1.4")  # 5.1.3 stopped passing hyperparameters through a shell


def test_hyperparameters_cannot_reach_a_shell(packages: Distributions) -> None:
    assert Version(packages.versions["sagemaker-training"]) >= SAFE


def test_the_package_can_be_imported(run_python: RunPython) -> None:
    run_python("import sagemaker_training, sagemaker_training.environment")


def test_the_train_command_belongs_to_the_python_that_is_stated(host: Host) -> None:
    train = host.run("command -v train").stdout.strip()
    assert train, "there is no train command on PATH"
    first = host.run("head -n 1 %s", train).stdout.strip()
    stated = host.run('readlink -f "$(command -v python)"').stdout.strip()
    interpreter = first.removeprefix("#!").split()[0]
    assert host.run("readlink -f %s", interpreter).stdout.strip() == stated


def test_the_framework_that_handles_torch_distributed_is_set(host: Host) -> None:
    # Without it a job that asks for torch_distributed runs as one plain process, silently.
    module = host.environment().get("SAGEMAKER_TRAINING_MODULE", "")
    assert module == "sagemaker_pytorch_container.training:main"


def test_the_framework_module_can_be_imported(run_python: RunPython) -> None:
    run_python("from sagemaker_pytorch_container.training import main")
