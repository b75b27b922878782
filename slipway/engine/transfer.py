"""Images into and out of the engine: pull, push, load, import."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from docker.errors import APIError
from docker.utils import parse_repository_tag

from slipway.core import CredentialsFor, Event, OnEvent
from slipway.engine.client import Engine
from slipway.engine.diagnosis import diagnose
from slipway.engine.errors import EngineError, TransferError
from slipway.engine.images import find_image_id, inspect_image, tag_image
from slipway.engine.sdk_boundary import GONE, disk_full, engine_died, sdk_answer

# Statuses whose numbers are bytes over the network; extracting counts the same layer again.
_MOVING = ("Downloading", "Pushing")
_DONE = ("Pull complete", "Pushed")
_CACHED = ("Already exists", "Layer already exists", "Mounted from")
_PUSHED = re.compile(r"^\S+: digest: (\w+:[0-9a-f]+) size: \d+$")

DOCKER_HUB = "docker.io"


def registry_host(reference: str) -> str:
    """The registry of an image reference: what is before the first slash, if it looks like a host.

    The rule is distribution/reference:normalize.go's: a dot, a colon, or "localhost".
    """
    first, slash, _ = reference.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    return first if named else DOCKER_HUB


def pull_image(
    engine: Engine,
    reference: str,
    *,
    credentials: CredentialsFor,
    on_event: OnEvent,
    architecture: str = "",
) -> str:
    """Pull a tag or a digest and return the image id. Raises TransferError, EngineDiedError.

    Of an index the engine's own architecture is taken, or the one that is named.

    A reference without tag and digest means ":latest", never all tags.
    """
    api = engine.client.api
    repository, tag = parse_repository_tag(reference)
    progress = LayerProgress(f"pull {reference}", on_event)
    with _transfer(engine, reference):
        lines = api.pull(
            repository,
            tag=tag or "latest",
            stream=True,
            decode=True,
            auth_config=_login(credentials, reference),
            platform=f"linux/{architecture}" if architecture else None,
        )
        _follow(engine, reference, lines, progress.take)
        return str(inspect_image(engine, reference)["Id"])


def push_image_layers(
    engine: Engine, reference: str, *, credentials: CredentialsFor, on_event: OnEvent
) -> str:
    """Push a tag and return the manifest digest that the daemon reports ("sha256:...").

    One try: the daemon repeats some failures by itself, `TransferError.retry` says whether another
    call may help. Raises TransferError, EngineDiedError.
    """
    repository, tag = parse_repository_tag(reference)
    progress = LayerProgress(f"push {reference}", on_event)
    digests: list[str] = []

    def take(line: Mapping[str, Any]) -> None:
        if digest := pushed_digest(line):
            digests.append(digest)
        progress.take(line)

    with _transfer(engine, reference):
        lines = engine.client.api.push(
            repository,
            tag=tag or "latest",
            stream=True,
            decode=True,
            auth_config=_login(credentials, reference),
        )
        _follow(engine, reference, lines, take)
    if not digests:
        raise TransferError(
            "other", "the daemon reported no digest for this push", retry=True, where=reference
        )
    return digests[-1]


def import_rootfs(
    engine: Engine, tar_stream: IO[bytes], reference: str, changes: Sequence[str] = ()
) -> str:
    """Make a one-layer image from a root file system tar; returns the image id.

    `changes` are Dockerfile instructions (ENV, ENTRYPOINT, LABEL ...). Raises EngineError; then the
    reference names what it named before.
    """
    repository, tag = parse_repository_tag(reference)
    before = find_image_id(engine, reference)
    with _whole_or_not(engine, reference, before), _transfer(engine, reference):
        answer = engine.client.api.import_image_from_stream(
            iter(lambda: tar_stream.read(1 << 20), b""),
            repository=repository,
            tag=tag or "latest",
            changes=list(changes),
        )
        _follow(engine, reference, _objects(answer), lambda _: None)
        return str(inspect_image(engine, reference)["Id"])


def load_image_tar(engine: Engine, tar_stream: IO[bytes] | Iterator[bytes]) -> tuple[str, ...]:
    """Load a `docker save` tar; returns the references or ids that it held. Raises EngineError."""
    loaded: list[str] = []

    def take(line: Mapping[str, Any]) -> None:
        text = str(line.get("stream", ""))
        for prefix in ("Loaded image ID: ", "Loaded image: "):
            if text.startswith(prefix):
                loaded.append(text.removeprefix(prefix).strip())

    with _transfer(engine, "load"):
        lines: Generator[Any, None, None] = engine.client.api.load_image(tar_stream)  # type: ignore[no-untyped-call]
        _follow(engine, "load", lines, take)
    return tuple(loaded)


def _login(credentials: CredentialsFor, reference: str) -> dict[str, Any]:
    # An empty dict is "anonymous"; None would make the SDK look into ~/.docker/config.json.
    login = credentials(registry_host(reference))
    return {"username": login.username, "password": login.secret} if login else {}


def _follow(
    engine: Engine,
    reference: str,
    lines: Generator[Any, None, None],
    take: Callable[[Mapping[str, Any]], None],
) -> None:
    """Read an answer to its end. The SDK raises nothing for errors in it: docker/docker-py#3277."""
    with closing(lines):  # and with it the connection, where we stop in the middle
        for line in lines:
            if isinstance(line, Mapping):
                detail = line.get("errorDetail") or {}
                message = detail.get("message") or line.get("error")
                if message:
                    raise _error(engine, reference, str(message))
                take(line)


def _objects(text: str) -> Generator[Any, None, None]:
    return (json.loads(line) for line in text.splitlines() if line.strip())


def _error(engine: Engine, reference: str, message: str) -> EngineError:
    diagnosis = diagnose(message)
    if diagnosis.kind == "disk_full":
        full = disk_full(engine, f"transferring {reference}")
        return TransferError("disk_full", full.what, retry=False, where=reference, cure=full.cure)
    return TransferError(
        diagnosis.kind, message.strip(), retry=diagnosis.retry, where=reference, cure=diagnosis.cure
    )


@contextmanager
def _whole_or_not(engine: Engine, reference: str, before: str | None) -> Iterator[None]:
    """Where an import fails, take away the image that it named.

    With containerd's store the daemon names the image first, and unpacks it then
    (moby/moby:daemon/containerd/image_import.go).
    """
    try:
        yield
    except TransferError:
        if find_image_id(engine, reference) != before:
            engine.client.api.remove_image(reference, force=True)
            if before is not None:
                tag_image(engine, before, reference)
        raise


@contextmanager
def _transfer(engine: Engine, reference: str) -> Iterator[None]:
    """Turn what the SDK and its HTTP library raise into our errors."""
    try:
        yield
    except APIError as error:
        raise _error(engine, reference, sdk_answer(error)) from error
    except GONE as error:
        raise engine_died(engine, f"transferring {reference}") from error


_ARRIVED = ("Download complete", *_DONE)


def pushed_digest(line: Mapping[str, Any]) -> str | None:
    """The manifest digest, if this line of a push tells it.

    Engines with graph drivers tell it twice, as a status and as "aux"; those with the containerd
    store as a status alone.
    """
    match = _PUSHED.match(str(line.get("status", "")))
    return match[1] if match else (line.get("aux") or {}).get("Digest")


@dataclass
class LayerProgress:
    """Byte progress over all layers, and one event a layer when it is there."""

    task: str
    on_event: OnEvent
    bytes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, line: Mapping[str, Any]) -> None:
        """One JSON line of the answer; those that tell nothing of a layer are passed over."""
        layer, status = str(line.get("id", "")), str(line.get("status", ""))
        detail = line.get("progressDetail") or {}
        if status in _MOVING and "current" in detail:
            now = int(detail["current"])
            # A push compresses on the way, and its total is that of the uncompressed layer.
            self._moved(layer, now, max(now, int(detail.get("total") or 0)))
        elif status in _ARRIVED and layer in self.bytes:
            total = self.bytes[layer][1]
            self._moved(layer, total, total)
        if status in _DONE:
            self.on_event(Event("done", self.task, layer, status))
        elif status.startswith(_CACHED):
            self.on_event(Event("cached", self.task, layer, status))

    def _moved(self, layer: str, current: int, total: int) -> None:
        if self.bytes.get(layer) == (current, total):
            return
        self.bytes[layer] = (current, total)
        self.on_event(
            Event(
                "progress",
                self.task,
                current=sum(current for current, _ in self.bytes.values()),
                total=sum(total for _, total in self.bytes.values()),
                unit="B",
            )
        )
