from __future__ import annotations

import json

from testinfra.host import Host  # type: ignore[import-untyped]

from slipway.verify.expectations import CheckedImage
from slipway.verify.plugin import RunPython


def test_torch_and_its_cuda_are_as_stated(run_python: RunPython, subject: CheckedImage) -> None:
    code = "import json, torch; print(json.dumps([torch.__version__, torch.version.cuda]))"
    version, cuda = json.loads(run_python(code))
    assert version.partition("+")[0] == subject.torch.partition("+")[0]
    if subject.facts["torch"]:  # an add-on's own version says what it was built with
        assert cuda == subject.facts["torch_cuda"]


def test_torchrun_is_found_in_a_login_shell(host: Host) -> None:
    for shell in ("sh -lc", "bash -lc"):
        found = host.run(f"{shell} %s", "command -v torchrun")
        assert found.stdout == host.run("command -v torchrun").stdout
