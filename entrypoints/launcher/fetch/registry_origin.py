"""A .sqsh in a registry: pieces are blobs, listed by a manifest that refers to the image.

`inv sqsh --push` puts it there (slipway/sqsh/pushed_file.py). From the image's tag it is found as
the referrers API says, or by the tag that stands in for that API (OCI distribution specification,
"Referrers Tag Schema").
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import subprocess
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from launcher.causes import LaunchUsageError
from launcher.fetch.http_answers import HttpAnswer, get_url
from launcher.fetch.origin import OriginFile
from launcher.fetch.sqsh_sidecar import (
    LARGEST_SIDECAR,
    FetchError,
    FilePiece,
    check_name,
    parse_sidecar,
)

SQSH_ARTIFACT = "application/vnd.slipway.sqsh.v1"
SIDECAR_BLOB = "application/vnd.slipway.sqsh.sidecar.v1+json"
TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"
LARGEST_MANIFEST = 4 << 20
LOGIN_VARIABLE = "SLIPWAY_REGISTRY_LOGIN"
"""HOST=USER:SECRET, for machines without a docker login."""

_URI = re.compile(
    r"registry://(?P<host>[A-Za-z0-9.\[\]:-]+)/(?P<path>[a-z0-9][a-z0-9._/-]*?)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_ECR = re.compile(r"\d{12}\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.[a-z0-9.]+")
_NEXT = re.compile(r'<([^<>]{1,2000})>\s*;[^,]*\brel="?next"?')
_HELPER_SECONDS = 60
_MOST_PAGES = 50


class RegistryOrigin:
    """One file of one repository. Safe to share by threads."""

    def __init__(self, uri: str, env: Mapping[str, str], *, plain_http: bool = False) -> None:
        match = _URI.fullmatch(uri)
        if match is None or not (match["tag"] or match["digest"]):
            raise LaunchUsageError(
                f"{uri!r} names no image: registry://HOST/REPOSITORY:TAG or @sha256:DIGEST"
            )
        self.where = uri.partition("://")[2]
        self._reference = match["digest"] or match["tag"]
        host = match["host"]
        name = host.rpartition(":")[0] or host
        local = name in ("localhost", "127.0.0.1", "[::1]")
        scheme = "http" if plain_http or local else "https"
        self._base = f"{scheme}://{host}/v2/{match['path']}"
        self._scope = f"repository:{match['path']}:pull"
        self._login = RegistryLogins(host, env)
        self._header = ""
        self._lock = threading.Lock()

    def describe(self) -> OriginFile:
        """As Origin says: of the image's .sqsh files the one that was pushed last."""
        manifest, digest = self._manifest(self._reference)
        if manifest.get("artifactType") != SQSH_ARTIFACT:
            manifest, digest = self._referrer(digest)
        blobs = [
            blob
            for blob in _objects(manifest, "layers")
            if blob.get("mediaType") == SIDECAR_BLOB and _is_digest(blob.get("digest"))
        ]
        if len(blobs) != 1:
            raise FetchError(f"{self.where}: {digest} names no sidecar of a .sqsh")
        name = check_name(str(_mapping(manifest, "annotations").get(TITLE, "")), self.where)
        wanted = str(blobs[0]["digest"])
        with closing(self._get(f"blobs/{wanted}")) as answer:
            self._expect(answer, 200, wanted)
            raw = answer.body(LARGEST_SIDECAR)
        self._check_digest(raw, wanted)
        return OriginFile(name, parse_sidecar(raw, self.where))

    def read(self, piece: FilePiece, offset: int) -> Generator[bytes, None, None]:
        """As Origin says."""
        digest = f"sha256:{piece.sha256}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with closing(self._get(f"blobs/{digest}", headers)) as answer:
            skip = offset if answer.status == 200 else 0  # a server without ranges
            if answer.status == 206:
                stated = re.match(r"bytes (\d+)-", answer.headers.get("content-range", ""))
                if stated and int(stated[1]) != offset:
                    raise FetchError(f"{self.where} answers with another range than asked for")
            else:
                self._expect(answer, 200, digest)
            for part in answer.parts():
                if skip < len(part):
                    yield part[skip:]
                skip -= min(skip, len(part))

    def _referrer(self, image: str) -> tuple[dict[str, Any], str]:
        """The manifest of the newest .sqsh of an image."""
        entries = self._listed(f"referrers/{image}", {})
        if not entries:
            entries = self._listed(f"manifests/{image.replace(':', '-')}", _accept())
        candidates = [
            (str(_mapping(entry, "annotations").get(CREATED, "")), str(entry["digest"]))
            for entry in entries
            if entry.get("artifactType") == SQSH_ARTIFACT and _is_digest(entry.get("digest"))
        ]
        if not candidates:
            raise FetchError(
                f"{self.where} ({image[:19]}) has no .sqsh: `./inv sqsh NAME --push` puts it there"
            )
        return self._manifest(max(candidates)[1])

    def _listed(self, path: str, headers: Mapping[str, str]) -> list[dict[str, Any]]:
        """The entries of an index, which may come in pages; none where it is not there."""
        entries: list[dict[str, Any]] = []
        for _ in range(_MOST_PAGES):
            with closing(self._get(path, headers)) as answer:
                if answer.status != 200:
                    break
                entries += _objects(_parse(answer.body(LARGEST_MANIFEST), self.where), "manifests")
            following = _NEXT.search(answer.headers.get("link", ""))
            if following is None:
                break
            target = urljoin(answer.url, following[1])
            if not target.startswith(f"{self._base}/"):
                raise FetchError(f"{self.where} sends us on to {target[:200]!r}")
            path = target[len(self._base) + 1 :]
        return entries

    def _manifest(self, reference: str) -> tuple[dict[str, Any], str]:
        with closing(self._get(f"manifests/{reference}", _accept())) as answer:
            self._expect(answer, 200, reference)
            raw = answer.body(LARGEST_MANIFEST)
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if _is_digest(reference):
            self._check_digest(raw, reference)
        return _parse(raw, self.where), digest

    def _check_digest(self, raw: bytes, wanted: str) -> None:
        if f"sha256:{hashlib.sha256(raw).hexdigest()}" != wanted:
            raise FetchError(f"{self.where} answers with something else than {wanted[:19]}")

    def _expect(self, answer: HttpAnswer, status: int, what: str) -> None:
        if answer.status == status:
            return
        if answer.status in (401, 403):
            raise FetchError(
                f"{self.where}: the registry refuses this login ({answer.status}). `docker login`,"
                f" a credential helper, the `aws` command or {LOGIN_VARIABLE}=HOST=USER:SECRET"
                " gives one"
            )
        if answer.status == 404:
            raise FetchError(f"{self.where}: {what[:80]} is not there")
        raise FetchError(f"{self.where} answers with {answer.status} for {what[:80]}")

    def _get(self, path: str, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """GET below the repository, logged in as the registry asks, with each login there is."""
        header = self._header
        for _ in range(5):
            login = {"Authorization": header} if header else {}
            answer = get_url(f"{self._base}/{path}", {**(headers or {}), **login})
            basic = header.startswith("Basic ")
            # ECR says 403 of a login that has ended, which one of docker's does after 12 hours.
            if answer.status != 401 and not (basic and answer.status == 403):
                return answer
            with closing(answer):
                challenge = answer.headers.get("www-authenticate", "")
            with self._lock:
                if self._header == header:
                    if basic:
                        self._login.refuse(header)
                    other = self._login.answer(challenge, self._scope, self._base)
                    self._header = other or header
                if self._header == header:
                    return answer  # nothing else to say: the caller tells of the refusal
                header = self._header
        return answer


class RegistryLogins:
    """Logins for a registry: of docker's configuration, of a helper, of the `aws` command."""

    def __init__(self, host: str, env: Mapping[str, str]) -> None:
        self._host = host
        self._env = env
        self._refused: set[str] = set()

    def refuse(self, header: str) -> None:
        """The login of this Basic header is not taken: the next one is to be tried."""
        self._refused.add(base64.b64decode(header.partition(" ")[2]).decode())

    def answer(self, challenge: str, scope: str, base: str) -> str:
        """The Authorization header that a challenge asks for; "" where there is none to give."""
        scheme, _, rest = challenge[:4096].strip().partition(" ")
        login = self.find()
        basic = base64.b64encode(login.encode()).decode() if login else ""
        if scheme.lower() != "bearer":
            return f"Basic {basic}" if basic else ""
        asked = challenge_parameters(rest)
        realm = asked.get("realm", "")
        own, theirs = urlsplit(base), urlsplit(realm)
        if theirs.scheme != "https" and theirs.netloc != own.netloc:
            raise FetchError(f"{self._host} wants a token of {realm[:100]!r}, which is not https")
        # A registry can name any realm: its login goes to itself and its parent domain alone.
        kin = theirs.netloc == own.netloc or f".{own.hostname}".endswith(f".{theirs.hostname}")
        query = {"scope": asked.get("scope", scope)}
        if "service" in asked:
            query["service"] = asked["service"]
        headers = {"Authorization": f"Basic {basic}"} if basic and kin else {}
        with closing(get_url(f"{realm}?{urlencode(query, quote_via=quote)}", headers)) as answer:
            if answer.status != 200:
                return ""
            data = _parse(answer.body(1 << 20), realm)
        token = str(data.get("token") or data.get("access_token") or "")
        return f"Bearer {token}" if re.fullmatch(r"[\x21-\x7e]+", token) else ""

    def find(self) -> str:
        """USER:SECRET, of those that were not refused; "" where there is none."""
        return next((login for login in self._known() if login not in self._refused), "")

    def _known(self) -> Iterator[str]:
        host, _, login = self._env.get(LOGIN_VARIABLE, "").partition("=")
        if login and host == self._host:
            yield login
        folder = Path(self._env.get("DOCKER_CONFIG") or f"{self._env.get('HOME', '/')}/.docker")
        try:
            config = _parse((folder / "config.json").read_bytes(), str(folder))
        except (OSError, FetchError):
            config = {}
        helpers, auths = _mapping(config, "credHelpers"), _mapping(config, "auths")
        helper = next(iter(self._entries(helpers)), None) or config.get("credsStore")
        if isinstance(helper, str) and re.fullmatch(r"[a-z0-9-]+", helper):
            yield from filter(None, [self._of_helper(helper)])
        for entry in self._entries(auths):
            kept = entry.get("auth") if isinstance(entry, dict) else None
            if isinstance(kept, str):
                with contextlib.suppress(ValueError):
                    yield base64.b64decode(kept).decode().rstrip("\0")
        if ecr := _ECR.fullmatch(self._host):
            yield from filter(None, [self._of_aws(ecr[1])])

    def _entries(self, by_server: Mapping[str, Any]) -> list[Any]:
        """What is said of this host, which older clients named as https://HOST/v1/."""
        servers = [name for name in by_server if self._host == _host_of(name)]
        return [by_server[name] for name in sorted(servers, key=len)]

    def _of_helper(self, helper: str) -> str:
        """docker/docker-credential-helpers: `get` reads the host, answers with JSON."""
        done = self._run([f"docker-credential-{helper}", "get"], self._host)
        try:
            data = _parse(done.encode(), helper)
            return f"{data['Username']}:{data['Secret']}"
        except (FetchError, KeyError):
            return ""

    def _of_aws(self, region: str) -> str:
        token = self._run(["aws", "ecr", "get-login-password", "--region", region], "").strip()
        return f"AWS:{token}" if token else ""

    def _run(self, command: list[str], given: str) -> str:
        try:
            done = subprocess.run(
                command, input=given, env=dict(self._env), capture_output=True, text=True,
                check=False, timeout=_HELPER_SECONDS,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout if done.returncode == 0 else ""


def _host_of(server: str) -> str:
    return (server.partition("://")[2] or server).partition("/")[0]


def challenge_parameters(text: str) -> dict[str, str]:
    """The parameters of a WWW-Authenticate header's one challenge (RFC 9110, 11.6.1)."""
    return {
        match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        for match in _PARAMETER.finditer(text)
    }


def _accept() -> dict[str, str]:
    return {"Accept": ", ".join(_MANIFESTS)}


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        data = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FetchError(f"{where} answers with something that is no JSON") from error
    if not isinstance(data, dict):
        raise FetchError(f"{where} answers with something that is no JSON object")
    return data


def _objects(data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = data.get(key)
    rows = value if isinstance(value, list) else []
    return [row for row in rows if isinstance(row, dict)]


def _mapping(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}
