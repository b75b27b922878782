"""Extending a large base: an engine's pull, build and push beside `--no-engine`, skopeo and crane.

    .venv/bin/python -m bench.registry_extend --base HOST/REPO:TAG --work DIR --rounds 2

HOST/REPO:TAG is an image of the embedded default base (`docker push` it to a registry of this
machine). It gets six layers of half-random data on top: 5 GB unpacked, 2.4 GB compressed. Root,
dockerd, docker-registry and skopeo; 25 GB below DIR; three minutes and about ten a round.
Registries are on loopback. Ways alternate, and each begins without anything of the image: an empty
engine, an empty target repository, no layers in the cache. Wheels are there for all. `--no-engine`
has read the base's packages before, but for the first row, which is measured once for each DIR.
crane (a package of newer Debians; left out where there is none) appends the layers that
`--no-engine` has made just before: it makes none, and changes no other part of the configuration.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from slipway.append.layer_blobs import layer_tar
from slipway.append.layer_files import LayerFile, LayerPlan
from slipway.core import Project, anonymous, sha256_file, silent
from slipway.engine import (
    BuildAttempt,
    BuildRequest,
    build_image,
    connect,
    pull_image,
    stop_daemon,
)
from slipway.pipeline import Checkout
from slipway.pipeline.build_requests import launcher_context
from slipway.registry import (
    OCI_MANIFEST,
    Manifest,
    RegistryClient,
    Repository,
    Target,
    copy_image,
    credentials_for,
    digest_of,
    push_image,
    start_local_registry,
    stop_local_registry,
)
from slipway.registry.distribution import upload_blob
from slipway.wheels import ContextRequest, make_image_context
from tests.support.registry.open_registry import open_registry

ROOT = Path(__file__).parents[1]
IMAGE, NEXT = "local-ds0.19.8", "local-ds0.19.2"
LAYERS, LAYER_BYTES = 6, 640 << 20
OURS = "sagemaker-slipway/local"


class Bench:
    """Registries, the base in them, and the two ways."""

    def __init__(self, work: Path, wheels: Path) -> None:
        self.work, self.wheels = work, wheels
        self.checkout = Checkout.at(ROOT)
        self.images = {image.name: image for image in self.checkout.matrix.images}
        base = self.images[IMAGE].base
        self.path, self.tag = base.repository, base.tag

    @contextmanager
    def source(self) -> Iterator[Target]:
        """Where the base comes from: it asks nobody for a login, as the public ones do."""
        with open_registry(self.work / "source" / "registry") as host:
            yield Target("source", "local", host)

    @contextmanager
    def registry(self, name: str) -> Iterator[tuple[Target, Project]]:
        """A registry of its own; it ends with the block, its data stay."""
        project = Project(ROOT, self.work / name)
        yield start_local_registry(project, None), project
        stop_local_registry(project)

    def make_base(self, source: str, target: Target) -> int:
        """The large base in `target`, made of a small one; its compressed bytes."""
        host, _, rest = source.partition("/")
        path, _, tag = rest.rpartition(":")
        with (
            RegistryClient(host, anonymous) as client,
            RegistryClient(target.host, anonymous) as there,
        ):
            if there.head(self.path, self.tag):
                return there.manifest(self.path, self.tag).size
            small = Repository(client, path)
            copy_image(small, tag, Repository(there, self.path), "small")
            manifest = client.manifest(path, tag)
            config = client.config(path, manifest)
            content = manifest.json()
            for number in range(LAYERS):
                diff_id, part = self._layer(number, there)
                config["rootfs"]["diff_ids"].append(diff_id)
                content["layers"].append(part)
            raw = json.dumps(config).encode()
            upload_blob(there, self.path, digest_of(raw), io.BytesIO(raw), len(raw))
            content["config"] |= {"digest": digest_of(raw), "size": len(raw)}
            document = json.dumps(content).encode()
            made = Manifest(content.get("mediaType", OCI_MANIFEST), digest_of(document), document)
            there.put_manifest(self.path, self.tag, made)
            return made.size

    def _layer(self, number: int, there: RegistryClient) -> tuple[str, dict[str, object]]:
        """Half random bytes, half zeros, in 4,000 files; compressed by pigz or gzip."""
        noise = random.Random(number)
        size = LAYER_BYTES // 4000
        files = tuple(
            LayerFile(
                f"opt/data/{number}/{at % 50}/{at}",
                noise.randbytes(size // 2) + bytes(size // 2),
                size // 2 * 2,
            )
            for at in range(4000)
        )
        packer = shutil.which("pigz") or "gzip"
        with tempfile.NamedTemporaryFile(dir=self.work) as packed:
            hasher = hashlib.sha256()
            with subprocess.Popen([packer, "-1", "-n"], stdin=-1, stdout=packed) as process:
                assert process.stdin
                for piece in layer_tar(LayerPlan("data", files)):
                    hasher.update(piece)
                    process.stdin.write(piece)
            path = Path(packed.name)
            name, length = f"sha256:{sha256_file(path)}", path.stat().st_size
            with path.open("rb") as blob:
                upload_blob(there, self.path, name, blob, length)
        kind = "application/vnd.docker.image.rootfs.diff.tar.gzip"
        return f"sha256:{hasher.hexdigest()}", {"mediaType": kind, "digest": name, "size": length}

    def state(self, target: Project) -> Path:
        """The target's state folder with wheels, its registry, and nothing else."""
        for path in target.state.iterdir():
            if path.is_dir() and path != target.registry:
                shutil.rmtree(path)
        (target.state / "cache").mkdir()
        for part in ("wheels", "built", "tools"):
            (target.state / "cache" / part).symlink_to(self.wheels / part)
        return target.state

    def fetch_wheels(self) -> None:
        """Have the wheels of both images here, those that are built among them."""
        context = Project(ROOT, self.work / "context")
        context.state.mkdir(exist_ok=True)
        self.state(context)
        for name in (IMAGE, NEXT):
            matrix, locks = self.checkout.matrix, self.checkout.locks
            make_image_context(
                ContextRequest(context, matrix, self.images[name], locks, engine=None, base="")
            )

    def ours(self, image: str, base: Target, state: Path, *words: str) -> dict[str, float]:
        """`inv push --no-engine`: seconds of the command, and as it says itself of build and push;
        MB sent, MB of disk."""
        before = disk_of(state)
        command = [sys.executable, "-m", "slipway.tasks.cli", "--search-root", str(ROOT)]
        command += [*(words or ("push",)), image, "--no-engine", "--base-from"]
        command.append(f"registry://{base.host}/{self.path}:{self.tag}")
        started = time.monotonic()
        done = subprocess.run(
            command,
            env={**os.environ, "SLIPWAY_STATE": str(state)},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
        if done.returncode:
            raise SystemExit(done.stderr)
        sent = re.search(r"([\d.]+) (k?M?G?)B sent", done.stdout + done.stderr)
        scale = {"": 1e-6, "k": 1e-3, "M": 1.0, "G": 1e3}
        up = float(sent[1]) * scale[sent[2]] if sent else 0.0
        steps = re.findall(r"^\S+ +(?:build|push) +([\d.]+) s", done.stdout, re.MULTILINE)
        return {
            "s": seconds,
            "s build+push": sum(map(float, steps)),
            "MB up": up,
            "MB disk": (disk_of(state) - before) / 1e6,
        }

    def docker(
        self, names: list[str], base: Target, target: Target, owner: Project
    ) -> list[dict[str, float]]:
        """Pull, build and push with an engine that is empty at first; one figure an image."""
        logins = credentials_for(project=owner)
        project = Project(ROOT, self.work / "docker")
        stop_daemon(project)  # that of a run that was cut off
        subprocess.run(["rm", "-rf", str(project.state)], check=True)
        engine = connect(project, "embedded")
        figures: list[dict[str, float]] = []
        context = Project(ROOT, self.work / "context")
        context.state.mkdir(exist_ok=True)
        self.state(context)
        for name in names:
            image = self.images[name]
            inputs = self.checkout.inputs([image])[name]
            matrix, locks = self.checkout.matrix, self.checkout.locks
            files = make_image_context(
                ContextRequest(context, matrix, image, locks, engine=None, base="")
            )
            reference = f"{base.host}/{self.path}:{self.tag}"
            tag = f"bench/{name}:1"
            build = BuildRequest(
                dockerfile=self.checkout.dockerfile(image),
                context=(*files, *launcher_context(context, image.base.facts.python)),
                tags=(tag,),
                build_args={"BASE_REGISTRY": base.host},
                labels={"io.slipway.build-id": inputs.build_id},
                secrets={},
            )
            started = time.monotonic()
            if not figures:
                pull_image(engine, reference, credentials=logins, on_event=silent)
            attempt = BuildAttempt(
                task="build", credentials=logins, on_event=silent, log=self.work / "build.log"
            )
            build_image(engine, build, attempt)
            result = push_image(
                engine, tag, target, "bench/docker", name, credentials=logins, on_event=silent
            )
            seconds = time.monotonic() - started
            disk = disk_of(Path(engine.data_root)) / 1e6
            figures.append({"s": seconds, "MB image": result.size_bytes / 1e6, "MB disk": disk})
        engine.close()
        stop_daemon(project)
        subprocess.run(["rm", "-rf", str(project.state)], check=True)
        return figures

    def crane(self, base: Target, target: Target, owner: Project, layers: Path) -> dict[str, float]:
        """`crane append` of layers that are made already; the base is mounted or streamed."""
        login = credentials_for(project=owner)(target.host)
        assert login
        folder = self.work / "crane"
        folder.mkdir(exist_ok=True)
        secret = base64.b64encode(f"{login.username}:{login.secret}".encode()).decode()
        logins = {target.host: {"auth": secret}}
        (folder / "config.json").write_text(json.dumps({"auths": logins}))
        files = sorted(layers.iterdir(), key=lambda path: path.stat().st_size)
        started = time.monotonic()
        subprocess.run(
            [
                *("crane", "append", "--base", f"{base.host}/{self.path}:{self.tag}"),
                *("--new_tag", f"{target.host}/bench/crane:1"),
                *(word for file in files for word in ("--new_layer", str(file))),
            ],
            env={**os.environ, "DOCKER_CONFIG": str(folder)},
            check=True,
            capture_output=True,
        )
        return {"s": time.monotonic() - started}

    def skopeo(self, source: Target, target: Target, owner: Project) -> dict[str, float]:
        """The base alone from registry to registry."""
        login = credentials_for(project=owner)(target.host)
        assert login
        started = time.monotonic()
        subprocess.run(
            [
                *("skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"),
                *("--dest-creds", f"{login.username}:{login.secret}"),
                f"docker://{source.host}/{self.path}:{self.tag}",
                f"docker://{target.host}/mirror:1",
            ],
            check=True,
        )
        return {"s": time.monotonic() - started}


def disk_of(folder: Path) -> int:
    """Bytes below a folder, without the registry that stands there."""
    kept = [path for path in folder.iterdir() if path.name != "registry"]
    shown = subprocess.run(["du", "-sbc", *kept], capture_output=True, text=True, check=False)
    return int(shown.stdout.splitlines()[-1].split()[0]) if kept else 0


def empty_repository(target: Project, path: str) -> None:
    """Have the registry know nothing of a repository; it must not be running."""
    repositories = target.registry.rglob(f"v2/repositories/{path}")
    for folder in list(repositories):
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", required=True, help="HOST/REPO:TAG of the small base")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--wheels", type=Path, default=ROOT / ".slipway" / "cache")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--without-docker", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(options.work.resolve(), options.wheels.resolve())
    rows: defaultdict[str, list[dict[str, float]]] = defaultdict(list)

    def note(row: str, figures: dict[str, float]) -> None:
        rows[row].append(figures)
        said = ", ".join(f"{value:.1f} {unit}" for unit, value in figures.items())
        print(f"{row}: {said}", flush=True)

    with bench.source() as source:
        bench.fetch_wheels()
        size = bench.make_base(options.base, source)
        print(f"base: {size / 1e6:.0f} MB compressed, load {os.getloadavg()[0]:.1f}", flush=True)
        with (
            bench.registry("target") as (target, project),
            RegistryClient(source.host, anonymous) as a,
            RegistryClient(target.host, credentials_for(project=project)) as b,
        ):
            copy_image(Repository(a, bench.path), bench.tag, Repository(b, bench.path), bench.tag)
        for _ in range(options.rounds):
            one_round(bench, source, note, docker=not options.without_docker)
    table = Table("what", "seconds (median)", "all", "figures of the last")
    for row, measured in rows.items():
        seconds = [figures.pop("s") for figures in measured]
        rest = ", ".join(f"{value:.1f} {unit}" for unit, value in measured[-1].items())
        every = " ".join(f"{value:.1f}" for value in seconds)
        table.add_row(row, f"{statistics.median(seconds):.1f}", every, rest)
    Console(width=140).print(table)


def one_round(
    bench: Bench,
    source: Target,
    note: Callable[[str, dict[str, float]], None],
    *,
    docker: bool,
) -> None:
    """Every way once."""
    notes = bench.work / "notes"
    if not notes.exists():  # once for each base
        with bench.registry("target") as (target, project):
            state = bench.state(project)
            note("first sight of the base: its packages are read", bench.ours(IMAGE, target, state))
            shutil.copytree(state / "cache" / "bases", notes)
    empty_repository(Project(ROOT, bench.work / "target"), OURS)
    empty_repository(Project(ROOT, bench.work / "target"), "bench")
    with bench.registry("target") as (target, project):
        state = bench.state(project)
        shutil.copytree(notes, state / "cache" / "bases")
        note("new image, base in the registry: ours", bench.ours(IMAGE, target, state))
        layers = state / "cache" / "layers" / "sha256"
        shutil.rmtree(bench.work / "layers", ignore_errors=True)
        made = shutil.copytree(layers, bench.work / "layers")
        note("next variant: ours", bench.ours(NEXT, target, state))
        note("unchanged: ours", bench.ours(IMAGE, target, state))
        if shutil.which("crane"):
            note(
                "new image, base in the registry: crane, its layers made already",
                bench.crane(target, target, project, made),
            )
        if docker:
            first, second = bench.docker([IMAGE, NEXT], target, target, project)
            note("new image, base in the registry: docker", first)
            note("next variant: docker", second)
    ways = ["ours", "skopeo, the base alone"]
    ways += ["crane, its layers made already"] * bool(shutil.which("crane"))
    ways += ["docker"] * docker
    for way in ways:
        shutil.rmtree(bench.work / "empty", ignore_errors=True)
        with bench.registry("empty") as (target, project):
            if way == "ours":
                state = bench.state(project)
                shutil.copytree(notes, state / "cache" / "bases")
                figures = bench.ours(IMAGE, source, state)
            elif way == "docker":
                (figures,) = bench.docker([IMAGE], source, target, project)
            elif way.startswith("crane"):
                figures = bench.crane(source, target, project, made)
            else:
                figures = bench.skopeo(source, target, project)
            note(f"new image, base in another registry: {way}", figures)


if __name__ == "__main__":
    main()
