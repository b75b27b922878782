"""Files that are fetched as .sqsh files are: any bytes, with a sidecar of their pieces."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Generator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from launcher.fetch.named_origin import FolderOrigin
from launcher.fetch.sqsh_sidecar import FilePiece


def sidecar_text(pieces: Sequence[bytes]) -> bytes:
    """The sidecar of a file that is these pieces, as an export writes it."""
    lines = [f"{len(piece)} {hashlib.sha256(piece).hexdigest()}" for piece in pieces]
    digest = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    data = {
        "build_id": "b1",
        "digest": digest,
        "entries": 3,
        "format": "slipway-sqsh/4",
        "hot": [],
        "image_digests": [],
        "image_id": "sha256:1",
        "options": {},
        "pieces": lines,
        "reference": "train/x:1",
        "size": sum(map(len, pieces)),
        "slipway": "0",
    }
    return json.dumps(data, indent=2, sort_keys=True).encode() + b"\n"


def write_sqsh(path: Path, pieces: Sequence[bytes]) -> bytes:
    """The file and its sidecar; what is in the file."""
    content = b"".join(pieces)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.with_name(path.name + ".json").write_bytes(sidecar_text(pieces))
    return content


class CountingOrigin(FolderOrigin):
    """A folder that counts what is read of it, piece by piece."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reads: list[str] = []

    def read(self, piece: FilePiece, offset: int) -> Generator[bytes, None, None]:
        self.reads.append(piece.sha256)
        yield from super().read(piece, offset)


def digest_of(data: bytes) -> str:
    """As registries write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


Answer = tuple[int, dict[str, str], bytes]
#: Path, status, headers of the request, body -> another answer, or None for the right one.
Spoil = Callable[[str, int, dict[str, str], bytes], "Answer | None"]


class ServedFile:
    """A registry, in the smallest sense, of one image with one .sqsh. `spoil` changes answers."""

    def __init__(
        self,
        pieces: list[bytes],
        *,
        slow: float = 0.0,
        spoil: Spoil | None = None,
        name: str = "x.sqsh",
    ) -> None:
        sidecar = sidecar_text(pieces)
        self.blobs = {digest_of(piece): piece for piece in pieces}
        image = b'{"config": {}}'
        artifact = json.dumps(
            {
                "artifactType": "application/vnd.slipway.sqsh.v1",
                "layers": [
                    {
                        "mediaType": "application/vnd.slipway.sqsh.sidecar.v1+json",
                        "digest": digest_of(sidecar),
                    }
                ],
                "annotations": {"org.opencontainers.image.title": name},
            }
        ).encode()
        index = json.dumps(
            {
                "manifests": [
                    {
                        "digest": digest_of(artifact),
                        "artifactType": "application/vnd.slipway.sqsh.v1",
                    }
                ]
            }
        ).encode()
        self.documents = {
            f"blobs/{digest_of(sidecar)}": sidecar,
            "manifests/t": image,
            f"manifests/{digest_of(image)}": image,
            f"manifests/{digest_of(artifact)}": artifact,
            f"referrers/{digest_of(image)}": index,
        }
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.slow = slow
        self.spoil = spoil

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        name = path.partition("/v2/r/")[2]
        data = self.documents.get(name)
        status, extra = 200, {}
        if data is None:
            data = self.blobs.get(name.removeprefix("blobs/"))
            if data is not None:
                self.asked.append(name)
                time.sleep(self.slow)
        if data is None:
            status, data = 404, b"{}"
        if "Range" in headers and status == 200:
            start = int(headers["Range"].partition("=")[2].rstrip("-"))
            status, extra = 206, {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            data = data[start:]
        if self.spoil is not None:
            changed = self.spoil(path, status, headers, data)
            if changed is not None:
                return changed
        return status, extra, data

    def __enter__(self) -> tuple[str, list[str]]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.headers.append(dict(self.headers))
                status, extra, data = outer.answer(self.path, dict(self.headers))
                self.send_response(status)
                for key, value in ({"Content-Length": str(len(data))} | extra).items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return f"127.0.0.1:{self.server.server_address[1]}", self.asked

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
