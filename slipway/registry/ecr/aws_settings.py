"""What botocore is set to, with where each value came from: to name the setting that is wrong.

Read after a failure, and by botocore's own tables of names, so that a setting that a later version
brings is known here as well. Nothing here may fail: whatever is wrong with a file is the answer.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway.core import remember_secret
from slipway.registry.http_settings import (
    ENVIRONMENT,
    SettingFault,
    bundle_fault,
    proxy_fault,
    proxy_variable,
    split_url,
)

_SECRETS = ("aws_secret_access_key", "aws_session_token", "aws_security_token")
_KEYS = ("aws_access_key_id", *_SECRETS)
_CONTAINER_TOKENS = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE")


@dataclass(frozen=True)
class _Value:
    name: str  # as it is written where it stands
    text: str
    origin: str

    def fault(self, reason: str) -> SettingFault:
        return SettingFault(self.name, self.origin, reason)


@dataclass
class AwsSettings:
    """The environment and the profile in use of both files; `unreadable`: what is wrong there."""

    profile: str = "default"
    values: dict[str, _Value] = field(default_factory=dict)  # by the name that a file gives it
    unreadable: SettingFault | None = None
    _profiles: dict[str, dict[str, _Value]] = field(default_factory=dict)

    @classmethod
    def read(cls) -> AwsSettings:
        """All that botocore would see here. Secrets that are met are never shown from then on."""
        named = os.environ.get("AWS_DEFAULT_PROFILE") or os.environ.get("AWS_PROFILE")
        settings = cls(profile=named or "default")
        for variable, path in (
            ("AWS_CONFIG_FILE", "~/.aws/config"),
            ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        ):
            settings._read_file(variable, os.environ.get(variable) or path)
        settings.values.update(settings._profiles.get(settings.profile, {}))
        for key, variable in _variables():
            if variable in os.environ:
                settings.values[key] = _Value(variable, os.environ[variable], ENVIRONMENT)
        for key in _SECRETS:
            if key in settings.values:
                remember_secret(settings.values[key].text)
        return settings

    def _read_file(self, variable: str, path: str) -> None:
        parser = configparser.RawConfigParser(default_section="\0")
        full = str(Path(path).expanduser())
        name = variable if variable in os.environ else path
        origin = ENVIRONMENT if variable in os.environ else "botocore's default"
        try:
            parser.read_string(Path(full).read_text("utf-8"), full)
        except FileNotFoundError:
            return
        except (OSError, ValueError, configparser.Error) as error:
            reason = f"names a file that cannot be read: {full}{_place(error)}"
            self.unreadable = self.unreadable or SettingFault(name, origin, reason)
            return
        for section in parser.sections():
            profile = section.removeprefix("profile ").strip().strip("'\"")
            section_origin = f"{full}, section {section}"
            entries = {
                k: _Value(k, v, section_origin) for k, v in parser.items(section) if v is not None
            }
            self._profiles.setdefault(profile, {}).update(entries)

    def fault(self, *, logins: bool) -> SettingFault | None:
        """The first setting that cannot work; `logins`: those that credentials come from, too."""
        checks: list[Callable[[], Iterator[SettingFault]]] = [
            self._file_faults,
            self._number_faults,
            self._http_faults,
        ]
        if logins:
            checks.append(self._login_faults)
        return next((fault for check in checks for fault in check()), None)

    def named_in(self, text: str) -> SettingFault | None:
        """The setting that an error of botocore's speaks of."""
        words = text.lower().replace("_", " ")
        for key, value in self.values.items():
            if key.replace("_", " ") in words and key not in (*_KEYS, "region", "profile"):
                return value.fault(f"is {value.text!r}")
        return None

    def _file_faults(self) -> Iterator[SettingFault]:
        if self.unreadable is not None:
            yield self.unreadable
        name = "AWS_DEFAULT_PROFILE" if os.environ.get("AWS_DEFAULT_PROFILE") else "AWS_PROFILE"
        if os.environ.get(name) and self.profile not in self._profiles and not self.unreadable:
            yield SettingFault(
                name, ENVIRONMENT, f"names a profile that is in no file: {self.profile}"
            )

    def _number_faults(self) -> Iterator[SettingFault]:
        for key, convert in _conversions():
            value = self.values.get(key)
            if value is None:
                continue
            try:
                convert(value.text)
            except Exception:  # noqa: BLE001  whatever a conversion says, the value is none
                yield value.fault(f"is no value for it: {value.text!r}")

    def _http_faults(self) -> Iterator[SettingFault]:
        for key, value in self.values.items():
            if key.startswith("endpoint_url") and value.text:
                parts = split_url(value.text)
                if parts is None or parts.scheme not in ("http", "https"):
                    yield value.fault(f"is no URL: {value.text!r}")
        for value in self._service_endpoints():
            if split_url(value.text) is None:
                yield value.fault(f"is no URL: {value.text!r}")
        # botocore takes requests' variable where its own is not set.
        bundle = self.values.get("ca_bundle") or _variable("REQUESTS_CA_BUNDLE")
        if bundle is not None and bundle.text and (reason := bundle_fault(bundle.text)):
            yield bundle.fault(reason)
        proxy = proxy_variable("https://amazonaws.com/", all_proxy=False)
        if proxy and (reason := proxy_fault(os.environ[proxy])):
            yield SettingFault(proxy, ENVIRONMENT, reason)

    def _service_endpoints(self) -> Iterator[_Value]:
        services = self.values.get("services")
        for value in self._profiles.get(
            f"services {services.text}" if services else "", {}
        ).values():
            for match in re.finditer(r"(?m)^\s*endpoint_url\s*=\s*(.*)$", value.text):
                yield _Value(f"endpoint_url of {value.name}", match[1].strip(), value.origin)

    def _login_faults(self) -> Iterator[SettingFault]:
        for key in _KEYS:
            value = self.values.get(key)
            if value is not None and not re.fullmatch(r"[\x21-\x7e]*", value.text):
                yield value.fault("has a blank, a line end or a letter in it that no key has")
        command = self.values.get("credential_process")
        if command is not None and (reason := _program_fault(command.text)):
            yield command.fault(reason)
        tokens = [self.values.get("web_identity_token_file"), *map(_variable, _CONTAINER_TOKENS)]
        for token in tokens:
            if token is not None and (reason := _token_fault(token.text)):
                yield token.fault(reason)
        yield from self._profile_faults()
        header = _variable("AWS_CONTAINER_AUTHORIZATION_TOKEN")
        if header is not None and not header.text.isprintable():
            yield header.fault("has a line end in it")
        full = _variable("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        if full is not None and split_url(full.text) is None:
            yield full.fault("is no URL")
        path = _variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        if path is not None and not path.text.startswith("/"):
            yield path.fault(f"is no path that begins with a slash: {path.text!r}")

    def _profile_faults(self) -> Iterator[SettingFault]:
        """What the profile takes from other sections that are not there, or go in a circle."""
        session = self.values.get("sso_session")
        if session is not None and f"sso-session {session.text}" not in self._profiles:
            yield session.fault(f"names a session that is in no file: {session.text}")
        seen = {self.profile}
        source = self.values.get("source_profile")
        while source is not None:
            if source.text not in self._profiles:
                yield source.fault(f"names a profile that is in no file: {source.text}")
                return
            values = self._profiles[source.text]
            # A profile may name itself for its own keys, and ends there.
            if source.text in seen and not any(key in values for key in _KEYS):
                yield source.fault(f"leads in a circle: {source.text}")
            if source.text in seen:
                return
            seen.add(source.text)
            source = values.get("source_profile")

    def login_source(self) -> SettingFault | None:
        """Where credentials come from here, when what came from there is none."""
        process = self.values.get("credential_process")
        token = self.values.get("web_identity_token_file")
        full = _variable("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        for used in (full, _variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"), process, token):
            if used is not None:
                return used.fault("is where the credentials come from, and they are none")
        return None


def _place(error: Exception) -> str:
    """Where a file is broken; the words of configparser would show the line itself."""
    line = getattr(error, "lineno", None)
    if line is None and getattr(error, "errors", None):
        line = error.errors[0][0]  # type: ignore[attr-defined]
    if line is not None:
        return f", line {line}"
    if isinstance(error, UnicodeDecodeError):
        return f" (not UTF-8 at byte {error.start})"
    return f" ({getattr(error, 'strerror', None) or type(error).__name__})"


def _variable(name: str) -> _Value | None:
    return _Value(name, os.environ[name], ENVIRONMENT) if os.environ.get(name) else None


def _table() -> Mapping[str, tuple[Any, Any, Any, Any]]:
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES

    return BOTOCORE_DEFAUT_SESSION_VARIABLES


def _variables() -> Iterator[tuple[str, str]]:
    """(name in a file, variable of the environment), of all that botocore knows."""
    for logical, (key, variables, _default, _convert) in _table().items():
        for variable in [variables] if isinstance(variables, str) else variables or []:
            yield key or logical, variable
    for key in (*_KEYS, "web_identity_token_file"):
        yield key, key.upper() if key.startswith("aws_") else f"AWS_{key.upper()}"
    for variable in sorted(os.environ):
        if variable.startswith("AWS_ENDPOINT_URL"):
            yield variable.removeprefix("AWS_").lower(), variable


def _conversions() -> Iterator[tuple[str, Callable[[str], object]]]:
    for logical, (key, _names, _default, convert) in _table().items():
        if convert is not None:
            yield key or logical, convert


def _program_fault(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError:
        return "has a quotation mark that is not closed"
    if not words:
        return "is empty"
    return "" if shutil.which(words[0]) else f"names a program that is not there: {words[0]}"


def _token_fault(path: str) -> str:
    try:
        text = Path(path).read_text("ascii")
    except FileNotFoundError:
        return f"names a file that is not there: {path}"
    except (OSError, ValueError) as error:
        return f"names a file that holds no token: {path}{_place(error)}"
    remember_secret(text)
    return "" if text.strip() else f"names an empty file: {path}"
