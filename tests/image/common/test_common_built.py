from __future__ import annotations

from testinfra.host import Host  # type: ignore[import-untyped]

from slipway.verify.expectations import CheckedImage


def test_what_scripts_have_built_is_in_its_folder(host: Host, subject: CheckedImage) -> None:
    missing = [
        f"{folder}/{path}"
        for folder, paths in subject.built.items()
        for path in paths
        if not host.file(f"{folder}/{path}").exists
    ]
    empty = [folder for folder in subject.built if not host.file(folder).listdir()]
    assert (missing, empty) == ([], [])


def test_the_own_check_of_every_addon_succeeds(host: Host, subject: CheckedImage) -> None:
    failed = {}
    for addon, command in subject.checks.items():
        done = host.run("sh -c %s", command)
        if done.rc != 0:
            failed[addon] = f"{command} ended with {done.rc}: {done.stdout}{done.stderr}"
    assert failed == {}
