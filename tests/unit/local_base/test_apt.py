"""The host's apt settings; the texts are what apt 2.6 prints for such files."""

from __future__ import annotations

from pathlib import Path

from slipway.core import Project
from slipway.local_base import apt
from slipway.local_base.rootfs import rootfs_id, rootfs_packages
from slipway.wheels.archives import acquire_settings

LISTED = """\
/etc/apt/sources.list:3 foo main
/etc/apt/sources.list:6 bookworm main
/etc/apt/sources.list:6 bookworm main
/etc/apt/sources.list:6 bookworm contrib
/etc/apt/sources.list.d/debian.sources:2 bookworm-security main
/etc/apt/sources.list.d/docker.list:1 bookworm stable
/etc/apt/sources.list.d/postgres.list:1 bookworm-pgdg main
"""


def test_only_debians_own_entries_are_taken() -> None:
    assert apt.debian_places(LISTED, "bookworm") == (
        (Path("/etc/apt/sources.list"), 6),
        (Path("/etc/apt/sources.list.d/debian.sources"), 2),
    )


def test_entries_are_taken_with_all_their_options(tmp_path: Path) -> None:
    line = "deb [signed-by=/k.gpg trusted=yes] http://mirror.invalid/debian bookworm main contrib"
    listed = tmp_path / "a.list"
    listed.write_text(f"# comment\n\ndeb http://x.invalid/ foo main\n\n# more\n{line}\n")
    stanza = "Types: deb\nURIs: http://mirror.invalid/s\nSuites: bookworm\nComponents: main\n"
    sources = tmp_path / "a.sources"
    sources.write_text(f"# lead\n\nTypes: deb\nEnabled: no\nURIs: http://q/\n\n# b\n\n#c\n{stanza}")
    found = apt.source_entries([(listed, 6), (sources, 2)])
    assert found == (f"{line}\n", stanza)
    assert apt.split_entries(found) == (f"{line}\n", stanza)


def test_another_distribution_or_release_lends_no_mirrors() -> None:
    debian = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_CODENAME=bookworm\nID=debian\n'
    ubuntu = "VERSION_CODENAME=jammy\nID=ubuntu\nID_LIKE=debian\n"
    assert apt.is_debian(debian, "bookworm")
    assert not apt.is_debian(debian, "trixie")
    assert not apt.is_debian(ubuntu, "bookworm")


def test_settings_about_fetching_are_kept_and_others_are_not() -> None:
    dump = (
        'APT::Architecture "amd64";\n'
        'Acquire "";\n'
        'Acquire::http "";\n'
        'Acquire::http::Proxy "http://user:secret@proxy.invalid:3128";\n'
        'Acquire::https::CAInfo "/etc/corporate.pem";\n'
        'Acquire::Check-Valid-Until "false";\n'
        'Acquire::IndexTargets::deb::Packages::MetaKey "$(COMPONENT)";\n'
        'Acquire::Changelogs::URI::Origin::Debian "https://changes.invalid";\n'
        'Dir::Etc "etc/apt";\n'
    )
    assert acquire_settings(dump).splitlines() == [
        'Acquire::http::Proxy "http://user:secret@proxy.invalid:3128";',
        'Acquire::https::CAInfo "/etc/corporate.pem";',
        'Acquire::Check-Valid-Until "false";',
    ]


def test_proxies_of_the_environment_become_settings() -> None:
    assert apt.proxy_settings(
        {"http_proxy": "http://p.invalid:1", "HTTPS_PROXY": "http://s:2"}
    ) == ('Acquire::http::Proxy "http://p.invalid:1";\nAcquire::https::Proxy "http://s:2";\n')
    assert apt.proxy_settings({}) == ""


def test_the_bundle_that_the_environment_names_comes_first(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    assert apt.ca_bundle({"SSL_CERT_FILE": str(bundle)}) == bundle
    assert apt.ca_bundle({"SSL_CERT_FILE": "/absent", "CURL_CA_BUNDLE": str(bundle)}) == bundle


def recipe(tmp_path: Path, listed: str, trimmed: str = "") -> Project:
    project = Project(tmp_path, tmp_path / "state")
    project.local_base.mkdir(parents=True, exist_ok=True)
    (project.local_base / "packages.txt").write_text(listed)
    (project.local_base / "dpkg.cfg").write_text(trimmed)
    return project


def test_packages_are_listed_one_a_line_with_comments(tmp_path: Path) -> None:
    project = recipe(tmp_path, "# why\n\npython3\ng++      # a compiler\n")
    assert rootfs_packages(project) == ("python3", "g++")


def test_a_root_file_system_is_known_by_its_packages_and_not_by_remarks(tmp_path: Path) -> None:
    first = rootfs_id(recipe(tmp_path, "python3\ng++ # a compiler\n"))
    assert rootfs_id(recipe(tmp_path, "# two\ng++\npython3\n")) == first
    assert rootfs_id(recipe(tmp_path, "python3\n")) != first
    assert rootfs_id(recipe(tmp_path, "python3\ng++\n", "path-exclude=/x\n")) != first
