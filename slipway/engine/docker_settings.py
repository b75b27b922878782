"""Which daemon the docker CLI would use here, read from the same places and in the same order.

DOCKER_HOST; else DOCKER_CONTEXT; else `currentContext` of config.json; else the default socket
(docker/cli:cli/command/cli.go, resolveContextName). Read here and not by the SDK, which takes the
default socket where a context is missing: work would go to another engine than the one named.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.core import did_you_mean
from slipway.engine.endpoint import DEFAULT_URL
from slipway.engine.errors import EngineUnavailableError

_CONTEXT = "DOCKER_CONTEXT"


@dataclass(frozen=True)
class DockerEndpoint:
    """Where a daemon listens. `named_by` is the setting that says so, empty for the default."""

    url: str
    named_by: str = ""
    certificates: Path | None = None  # a folder with ca.pem, cert.pem and key.pem, where TLS is on
    verify: bool = True

    def client_options(self) -> dict[str, Any]:
        """As the SDK's client takes it. Raises EngineUnavailableError: missing certificates."""
        if self.certificates is None:
            return {"base_url": self.url}
        from docker.errors import DockerException
        from docker.tls import TLSConfig

        ca, cert, key = (self.certificates / f"{name}.pem" for name in ("ca", "cert", "key"))
        try:
            tls = TLSConfig(
                client_cert=(str(cert), str(key)) if cert.exists() or key.exists() else None,
                ca_cert=str(ca) if ca.exists() or self.verify else None,
                verify=self.verify,
            )
        except DockerException as error:
            raise EngineUnavailableError(
                f"the certificates for this engine cannot be used: {error}",
                where=str(self.certificates),
                cure=f"Correct {self.named_by} (DOCKER_TLS_VERIFY and DOCKER_CERT_PATH say which "
                "certificates DOCKER_HOST has), or unset it.",
            ) from error
        return {"base_url": self.url, "tls": tls}


def docker_folder(environ: Mapping[str, str]) -> Path:
    """The docker CLI's folder: DOCKER_CONFIG, or ~/.docker."""
    given = environ.get("DOCKER_CONFIG")
    home = Path(environ["HOME"]) if environ.get("HOME") else Path("/root")
    return Path(given) if given else home / ".docker"


def docker_endpoint(environ: Mapping[str, str] | None = None) -> DockerEndpoint:
    """The daemon that the docker CLI would use.

    Raises EngineUnavailableError, naming the setting and the file, for a context that is not
    there or cannot be read.
    """
    environ = os.environ if environ is None else environ
    if host := environ.get("DOCKER_HOST", "").strip():
        verify = bool(environ.get("DOCKER_TLS_VERIFY"))
        given = environ.get("DOCKER_CERT_PATH")
        folder = Path(given) if given else docker_folder(environ)
        tls = folder if (verify or given) and not host.startswith("unix:") else None
        # As the CLI reads an address without a scheme.
        url = host if "://" in host else f"tcp://{host}"
        return DockerEndpoint(url, "DOCKER_HOST", tls, verify)
    folder = docker_folder(environ)
    name, named_by = environ.get(_CONTEXT, ""), _CONTEXT
    if not name:
        path = folder / "config.json"
        name, named_by = _current_context(path), f"currentContext in {path}"
    if name in ("", "default"):
        return DockerEndpoint(DEFAULT_URL)
    return _context(folder, name, named_by)


def _current_context(path: Path) -> str:
    value = read_docker_json(path).get("currentContext")
    if value is None or isinstance(value, str):
        return value or ""
    raise EngineUnavailableError(
        f"currentContext is {json.dumps(value)[:60]}, and not a context's name",
        where=str(path),
        cure="Correct it, or `docker context use default`.",
    )


def _context(folder: Path, name: str, named_by: str) -> DockerEndpoint:
    identity = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    path = folder / "contexts/meta" / identity / "meta.json"
    if not path.exists():
        raise EngineUnavailableError(
            f"there is no Docker context {name!r}{did_you_mean(name, _known_contexts(folder))}",
            where=named_by,
            cure="`docker context ls` lists them. Correct or unset this setting "
            "(`docker context use default`).",
        )
    endpoints = read_docker_json(path).get("Endpoints")
    endpoint = endpoints.get("docker") if isinstance(endpoints, dict) else None
    host = endpoint.get("Host") if isinstance(endpoint, dict) else None
    if not isinstance(host, str) or not host:
        raise EngineUnavailableError(
            f"the Docker context {name!r} names no engine (Endpoints.docker.Host)",
            where=str(path),
            cure=f"Make it anew: `docker context rm {name}`, then `docker context create`.",
        )
    assert isinstance(endpoint, dict)
    certificates = folder / "contexts/tls" / identity / "docker"
    return DockerEndpoint(
        host,
        f"the context {name!r} ({named_by})",
        certificates if certificates.is_dir() else None,
        verify=endpoint.get("SkipTLSVerify") is not True,
    )


def _known_contexts(folder: Path) -> list[str]:
    names = ["default"]
    for path in sorted(folder.glob("contexts/meta/*/meta.json")):
        try:
            name = read_docker_json(path).get("Name")
        except EngineUnavailableError:
            continue  # only for a suggestion
        names += [name] if isinstance(name, str) else []
    return names


def read_docker_json(path: Path) -> dict[str, Any]:
    """A file of the docker CLI's; nothing where there is none, or `null` in it.

    Raises EngineUnavailableError with the line for one that is no JSON object. A byte order mark
    is passed over.
    """
    try:
        if path.is_fifo():
            raise OSError(errno.EINVAL, "it is a pipe")  # reading would wait for a writer
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise EngineUnavailableError(
            f"this file of Docker's cannot be read: {error.strerror}",
            where=str(path),
            cure="Have it be a file that belongs to this user, or name another folder in "
            "DOCKER_CONFIG.",
        ) from error
    try:
        value = json.loads(data.decode("utf-8-sig")) if data.strip() else {}
        # An escape of half a character is one that is not known, as docker reads it.
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        line, why = 1, str(error).partition(";")[0]
        if isinstance(error, json.JSONDecodeError):
            line, why = error.lineno, error.msg
        elif isinstance(error, UnicodeDecodeError):
            line, why = data.count(b"\n", 0, error.start) + 1, "not UTF-8"
        raise EngineUnavailableError(
            f"this file of Docker's is not JSON: {why}",
            where=f"{path}:{line}",
            cure="Correct it by hand, or name another folder in DOCKER_CONFIG.",
        ) from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise EngineUnavailableError(
            "this file of Docker's is not a JSON object",
            where=f"{path}:1",
            cure="Correct it by hand, or name another folder in DOCKER_CONFIG.",
        )
    return value
