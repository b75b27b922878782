from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from slipway.resolve.pip_settings import (
    PipSettings,
    default_index,
    parse_pip_config,
    read_pip_settings,
    uv_environment,
)


def test_settings_come_from_configuration_files_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://one.invalid/simple\ntimeout = 5\n"
        "extra-index-url =\n    https://two.invalid/simple\n    file:///three\n"
        "[download]\ntimeout = 7\n[wheel]\ntimeout = 9\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_TRUSTED_HOST", "one.invalid two.invalid")
    monkeypatch.setenv("PIP_NO_INDEX", "true")
    for name in ("PIP_INDEX_URL", "PIP_TIMEOUT", "PIP_DEFAULT_TIMEOUT", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    found = read_pip_settings()
    assert found.index_url == "https://one.invalid/simple"
    assert found.extra_index_urls == ("https://two.invalid/simple", "file:///three")
    assert found.trusted_hosts == ("one.invalid", "two.invalid")
    assert found.no_index
    assert found.timeout == "7"


def test_the_environment_wins_over_a_command_section_and_that_over_global() -> None:
    text = ":env:.cert='/env'\nglobal.cert='/global'\ndownload.cert='/download'\n"
    assert parse_pip_config(text).cert == "/env"
    assert parse_pip_config("\n".join(reversed(text.splitlines()))).cert == "/env"
    assert parse_pip_config("download.cert='/d'\nglobal.cert='/g'").cert == "/d"


def test_pips_own_default_index_is_read_from_its_help() -> None:
    command = [sys.executable, "-m", "pip", "download", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = default_index(said)
    assert found is not None
    assert found.startswith("https://")
    assert found.endswith("/simple")
    assert default_index("another help") is None


def test_uv_is_told_every_setting() -> None:
    settings = PipSettings(
        index_url="https://main.invalid/simple",
        extra_index_urls=("https://a.invalid/simple", "https://b.invalid/simple"),
        find_links=("/wheels", "https://c.invalid/"),
        cert="/ca.pem",
        client_cert="/me.pem",
        proxy="http://proxy.invalid:3128",
        trusted_hosts=("a.invalid",),
        timeout="30",
    )
    found = uv_environment(settings, {"HOME": "/h", "UV_INDEX_URL": "https://old.invalid"})
    assert found["HOME"] == "/h"
    assert "UV_INDEX_URL" not in found
    searched = [*found["UV_INDEX"].split(), found["UV_DEFAULT_INDEX"]]
    assert searched == [settings.index_url, *settings.extra_index_urls]
    assert found["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert found["UV_FIND_LINKS"] == "/wheels,https://c.invalid/"
    assert found["SSL_CERT_FILE"] == "/ca.pem"
    assert found["SSL_CLIENT_CERT"] == "/me.pem"
    assert found["HTTPS_PROXY"] == "http://proxy.invalid:3128"
    assert found["UV_INSECURE_HOST"] == "a.invalid"
    assert found["UV_HTTP_TIMEOUT"] == "30"


def test_a_certificate_bundle_of_the_environment_counts_as_it_does_for_pip() -> None:
    found = uv_environment(PipSettings(), {"REQUESTS_CA_BUNDLE": "/corporate.pem"})
    assert found["SSL_CERT_FILE"] == "/corporate.pem"
