from __future__ import annotations

from testinfra.host import Host  # type: ignore[import-untyped]

from slipway.verify.expectations import CheckedImage

DPKG = (
    "dpkg-query --show "
    "--showformat='${binary:Package} ${Architecture} ${Version} ${db:Status-Abbrev}\\n'"
)
RPM = "rpm --query --all --queryformat '%{NAME} %{ARCH} %{EPOCHNUM}:%{VERSION}-%{RELEASE} ii\\n'"


def installed(host: Host, manager: str) -> dict[str, str]:
    """NAME:ARCHITECTURE -> version of every package that is whole."""
    found = {}
    for line in host.check_output(DPKG if manager == "apt" else RPM).splitlines():
        name, architecture, version, status = line.split()
        if status == "ii":
            found[f"{name.partition(':')[0]}:{architecture}"] = version.removeprefix("0:")
    return found


def test_packages_of_the_distribution_are_there_in_their_locked_versions(
    host: Host, subject: CheckedImage
) -> None:
    if subject.system or subject.removed:
        there = installed(host, str(subject.cell["base"]["family"]["package_manager"]))
        assert {name: there.get(name) for name in subject.system} == subject.system
        gone = {name for name in subject.removed if any(k.split(":")[0] == name for k in there)}
        assert gone == set()


def test_no_package_is_left_half_installed(host: Host, subject: CheckedImage) -> None:
    """What the base left so is its own; what was added has its dependencies."""
    if subject.system:
        manager = subject.cell["base"]["family"]["package_manager"]
        names = [name.split(":")[0] for name in subject.system]
        if manager == "apt":
            assert host.check_output("dpkg --audit") == ""
        else:
            # Files that a trimmed base leaves out are not missed: only what packages need is.
            done = host.run("rpm --verify --nofiles --nodigest --noscripts " + " ".join(names))
            assert (done.rc, done.stdout) == (0, "")
