"""A BuildKit session: what the daemon asks of us while it builds.

`POST /session` is upgraded to HTTP/2 with the roles turned round: the daemon calls, we answer.
Secrets and registry credentials go over it when a step needs them, and into no layer. The header
names: moby/buildkit:session/manager.go; docker-py has none of it (docker/docker-py#2230).
"""

from __future__ import annotations

import secrets as random
import socket
from collections.abc import Iterable, Mapping
from errno import ECONNABORTED

from slipway.core import CredentialsFor
from slipway.engine.buildkit.connection import dial_engine
from slipway.engine.buildkit.grpc import NOT_FOUND, GrpcError, GrpcServer
from slipway.engine.buildkit.protobuf import encode_field, message_fields, text_value
from slipway.engine.client import Engine
from slipway.engine.errors import EngineDiedError, EngineError

MAX_SECRET = 500 * 1024  # bytes; moby/buildkit:session/secrets/secrets.go, MaxSecretSize

_HEALTH = "/grpc.health.v1.Health/Check"
_SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"  # noqa: S105 - a method's name
_CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"


class Session:
    """An open session; `id` is what a build names to use it. Close it when the build has ended.

    `failure` is the first exception that asking for credentials raised: the daemon is told its
    text only, the build's caller should see it in its own type.
    """

    def __init__(
        self, engine: Engine, *, secrets: Mapping[str, bytes], credentials: CredentialsFor
    ) -> None:
        for name, value in secrets.items():
            if len(value) > MAX_SECRET:
                raise EngineError(
                    f"secret {name} has {len(value)} bytes; BuildKit takes at most {MAX_SECRET}",
                    cure="Hand large files over in the build context, if they are not secret.",
                )
        self.id = random.token_hex(16)
        self.failure: Exception | None = None
        self._credentials = credentials
        methods = {
            _HEALTH: lambda _: encode_field(1, 1),  # SERVING
            _SECRET: lambda message: _secret(secrets, message),
            _CREDENTIALS: self._login,
        }
        sock = dial_engine(engine)
        try:
            rest = _upgrade(sock, engine.api_version, self.id, methods)
        except OSError as error:
            sock.close()
            raise EngineDiedError(
                f"the engine hung up while a session was opened: {error.strerror}",
                where=engine.url,
                cure="Run the command again; `./inv doctor` tells whether the engine is back.",
            ) from error
        except BaseException:
            sock.close()
            raise
        self._server = GrpcServer(sock, methods, received=rest)

    def close(self) -> None:
        """End the session and its threads."""
        self._server.close()

    def _login(self, message: bytes) -> bytes:
        try:
            login = self._credentials(_first(message))
        except Exception as error:
            self.failure = self.failure or error
            raise
        return encode_field(1, login.username) + encode_field(2, login.secret) if login else b""


def _secret(secrets: Mapping[str, bytes], message: bytes) -> bytes:
    name = _first(message)
    if name not in secrets:
        raise GrpcError(NOT_FOUND, f"secret {name} was not given to this build")
    return encode_field(1, secrets[name])


def _first(message: bytes) -> str:
    return next((text_value(value) for number, value in message_fields(message) if number == 1), "")


def _upgrade(sock: socket.socket, api_version: str, session: str, methods: Iterable[str]) -> bytes:
    """Ask for the upgrade; returns what arrived behind the answer's headers."""
    lines = [
        f"POST /v{api_version}/session HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: h2c",
        f"X-Docker-Expose-Session-Uuid: {session}",
        "X-Docker-Expose-Session-Name: slipway",
        "X-Docker-Expose-Session-Sharedkey: ",
        # One header a method: written by hand because neither requests nor http.client repeats one.
        *(f"X-Docker-Expose-Session-Grpc-Method: {method}" for method in methods),
        "",
        "",
    ]
    sock.sendall("\r\n".join(lines).encode("ascii"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = sock.recv(4096)
        if not data:
            raise ConnectionAbortedError(ECONNABORTED, "no answer")
        answer += data
    head, _, rest = answer.partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0].decode("ascii", "replace")
    if " 101 " not in f"{status} ":
        raise EngineError(
            f"the engine opened no BuildKit session, it answered: {status}",
            cure="Docker 20.10 or newer is needed; `./inv doctor` shows the version in use.",
        )
    return rest
