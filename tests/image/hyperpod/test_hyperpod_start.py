"""The image as pyxis and enroot start it: no ENTRYPOINT, the launcher called by name."""

from __future__ import annotations

from testinfra.host import Host  # type: ignore[import-untyped]

from slipway.verify.expectations import CheckedImage


def test_the_launcher_works_where_no_entrypoint_runs(host: Host) -> None:
    assert host.run("launch help").rc == 0


def test_the_launcher_runs_a_script_on_this_node(host: Host) -> None:
    host.run_expect([0], "printf %s > /tmp/hello.py", "print('hello from training')\n")
    done = host.run("launch local --runner python -- /tmp/hello.py")
    assert done.rc == 0, done.stderr
    assert "hello from training" in done.stdout


def test_enroot_gives_the_image_its_gpus(host: Host, subject: CheckedImage) -> None:
    # enroot's hook (conf/hooks/98-nvidia.sh) takes an unset NVIDIA_VISIBLE_DEVICES for "void".
    if subject.facts["device"] == "gpu":
        assert host.environment().get("NVIDIA_VISIBLE_DEVICES") == "all"
    else:
        assert host.environment().get("NVIDIA_VISIBLE_DEVICES", "void") in ("void", "none")
