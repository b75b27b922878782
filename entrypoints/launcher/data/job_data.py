"""The job's transfers on one node: code, prefetch, checkpoints, the final model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import events
from launcher.causes import FETCH_SHORT, UPLOAD_UNVERIFIED, LaunchError
from launcher.data import resume, transfer
from launcher.data.checkpoints import Checkpoint
from launcher.data.file_tree import skipped_rows
from launcher.data.resume import RemoteCheckpoint
from launcher.data.s3 import S3, S3Error
from launcher.data.transfer import SentFiles, send_directory
from launcher.data.transfer_plan import TransferPlan
from launcher.data.uploader import UploadedFolder, Uploader
from launcher.peers import Peers
from launcher.platforms import Topology, make_place
from launcher.stop_request import StopRequest

MODEL_WARNING_BYTES = 1 << 30

COMPLETE = "_COMPLETE.json"


@dataclass(frozen=True)
class JobAgreement:
    """What node 0 has decided for all: the attempt's number, and what to go on from.

    `local` is a checkpoint in the checkpoint directory, `remote` one in S3; where both are set they
    are the same, and nodes that lack it (a replaced one, its disk empty) fetch it.
    """

    attempt: int
    remote: RemoteCheckpoint | None = None
    local: str = ""
    known: tuple[str, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """As JSON values."""
        remote = [self.remote.target, self.remote.name] if self.remote else None
        return {
            "attempt": self.attempt,
            "remote": remote,
            "local": self.local,
            "known": list(self.known),
        }


def agreed_from_wire(data: Mapping[str, Any]) -> JobAgreement:
    """The other end of `JobAgreement.to_wire`."""
    remote = RemoteCheckpoint(*data["remote"]) if data["remote"] else None
    return JobAgreement(data["attempt"], remote, data["local"], tuple(data["known"]))


class JobData:
    """Transfers of one job on this node. Nothing is contacted if the plan moves nothing."""

    def __init__(
        self,
        plan: TransferPlan,
        topology: Topology,
        env: Mapping[str, str],
        halt: StopRequest,
        gate: Peers,
        *,
        workers: int,
    ) -> None:
        self.plan = plan
        self._topology = topology
        self._gate = gate
        self._env = env
        self._halt = halt
        self._workers = workers
        self._uploader: Uploader | None = None
        self._attempt = 0

    def s3(self) -> S3:
        """For the time before ranks start: all the bandwidth, and any stop ends it."""
        return S3(self._env, self._halt)

    def _polite(self) -> S3:
        """For the time beside training and after a SIGTERM: few transfers, seen through."""
        return S3(self._env, self._halt, workers=self._workers, background=True, only_hard=True)

    def _job_uri(self, uri: str) -> str:
        return f"{uri}/{self._topology.job}"

    def _target(self, uri: str) -> str:
        """One prefix per job and attempt: every node writes below the same one."""
        return f"{self._job_uri(uri)}/{self._attempt}"

    def agree(self) -> JobAgreement:
        """Node 0: which attempt this is, and which checkpoint to go on from."""
        plan = self.plan
        if not plan.uris and plan.resume == "off":
            return JobAgreement(self._topology.attempt or 0)
        s3 = self.s3() if plan.uris else None
        attempt = self._topology.attempt
        if attempt is None:
            # SageMaker restarts a job (spot, retries) under its name and does not count.
            past = [
                n for uri in plan.uris if s3 for n in resume.list_attempts(s3, self._job_uri(uri))
            ]
            attempt = max(past, default=-1) + 1
        remote: list[RemoteCheckpoint] = []
        if s3 and plan.checkpoint_uri:
            remote = resume.all_complete(s3, self._job_uri(plan.checkpoint_uri))
        known = tuple(item.name for item in remote)
        if plan.resume == "off" or plan.checkpoint_dir is None:
            return JobAgreement(attempt, known=known)
        chosen = resume.choose_checkpoint(remote, plan.checkpoint_dir, plan.rule, plan.resume)
        if isinstance(chosen, Checkpoint):
            copies = [item for item in remote if item.name == chosen.name]
            copy = copies[-1] if copies else None
            return JobAgreement(attempt, remote=copy, local=chosen.name, known=known)
        return JobAgreement(attempt, remote=chosen, known=known)

    def fetch(self) -> None:
        """Everything of --prefetch, verified."""
        for source, target in self.plan.prefetch:
            moved = transfer.fetch_prefix(self.s3(), source, target)
            events.emit(
                "prefetched", source=source, to=str(target), files=moved.files, bytes=moved.size,
                copied=moved.copied,
            )  # fmt: skip

    def resume(self, agreed: JobAgreement) -> Path | None:
        """Bring the agreed checkpoint here; where it is, on every node."""
        self._attempt = agreed.attempt
        root = self.plan.checkpoint_dir
        if root is None:
            return None
        remote = agreed.remote
        if agreed.local:
            have = self._gate.gather(
                "have checkpoint", (root / agreed.local).exists(), halt=self._halt
            )
            without = [h for h, ok in zip(self._topology.hosts, have) if not ok]
            if not without:
                remote = None
            elif remote is None:
                raise LaunchError(
                    f"checkpoint {agreed.local} is not on {', '.join(without)}: use a shared "
                    "--checkpoint-dir, or --checkpoint-uri, or --resume off",
                    kind="ResumeError",
                )
        path: Path | None = root / agreed.local if agreed.local else None
        if remote is not None:
            try:
                path = resume.fetch_checkpoint(self.s3(), remote, root)
            except OSError as error:
                raise LaunchError(
                    f"checkpoint {remote.name} can not be fetched to {root}: {error}",
                    code=FETCH_SHORT,
                    kind="FetchError",
                ) from error
        events.emit("resume", path=str(path) if path else None)
        return path

    def watch(self, agreed: JobAgreement, interval: float) -> None:
        """Begin to upload checkpoints."""
        plan = self.plan
        if not plan.checkpoint_uri or plan.checkpoint_dir is None:
            return
        make_place(plan.checkpoint_dir)
        self._uploader = Uploader(
            self._polite(),
            self._gate,
            UploadedFolder(
                plan.checkpoint_dir, self._target(plan.checkpoint_uri), plan.rule, agreed.known
            ),
            node=self._topology.node_rank,
        )
        self._uploader.start(interval)

    def finish(self, success: bool) -> None:
        """After the ranks: the last checkpoints; on success the final model, from node 0."""
        if self._uploader is not None:
            self._uploader.finish()
        sent = self._upload() if success and self._topology.node_rank == 0 else {}
        self._gate.gather("verified", True)
        for target, part in sent.items():
            self._seal(target, part)
        self._gate.gather("complete", True)

    def _seal(self, target: str, sent: SentFiles) -> None:
        note = transfer.complete_note(
            sent.files,
            job=self._topology.job,
            attempt=self._attempt,
            skipped=skipped_rows(sent.skipped),
        )
        try:
            self._polite().put(note, f"{target}/{COMPLETE}")
        except S3Error as error:
            raise LaunchError(str(error), code=UPLOAD_UNVERIFIED, kind="UploadError") from error
        events.emit("complete", uri=target, files=len(sent.files), skipped=len(sent.skipped))

    def _upload(self) -> dict[str, SentFiles]:
        """What was uploaded, by its prefix."""
        sent: dict[str, SentFiles] = {}
        for directory, uri in self.plan.upload:
            s3 = S3(self._env, self._halt, only_hard=True)
            target = self._target(uri)
            part = send_directory(s3, directory, target)
            if not part.files:
                raise LaunchError(
                    f"--upload {directory}: there is nothing in it"
                    + "".join(f"; {row}" for row in skipped_rows(part.skipped)[:3]),
                    code=UPLOAD_UNVERIFIED,
                    kind="UploadError",
                )
            events.emit(
                "uploaded",
                source=str(directory),
                uri=target,
                files=len(part.files),
                bytes=sum(part.files.values()),
                skipped=skipped_rows(part.skipped),
            )
            all_of_it = sent.setdefault(target, SentFiles({}, {}))
            all_of_it.files.update(part.files)
            all_of_it.skipped.update(part.skipped)
        return sent


def warn_of_model(model: Path) -> None:
    """A large /opt/ml/model costs hours when the job is over."""
    size = sum(transfer.local_files(model).values())
    if size > MODEL_WARNING_BYTES:
        events.emit(
            "warning",
            text=f"{model} holds {size / 1e9:.1f} GB, which SageMaker now packs into one archive; "
            "--upload takes it to S3 as it is",
        )
