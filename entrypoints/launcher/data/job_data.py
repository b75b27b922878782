"""The job's transfers on one node: code, prefetch, checkpoints, the final model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import events
from launcher.causes import UPLOAD_UNVERIFIED, LaunchError
from launcher.data import resume, transfer
from launcher.data.checkpoints import Checkpoint
from launcher.data.resume import RemoteCheckpoint
from launcher.data.s3 import S3, S3Error
from launcher.data.transfer_plan import TransferPlan
from launcher.data.uploader import Uploader
from launcher.peers import Peers
from launcher.platforms import Topology
from launcher.stop_request import StopRequest

MODEL_WARNING_BYTES = 1 << 30

COMPLETE = "_COMPLETE.json"


@dataclass(frozen=True)
class JobAgreement:
    """What node 0 has decided for all: the attempt's number, and what to go on from."""

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
    """The other end of `Agreed.to_wire`."""
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
            return JobAgreement(attempt, local=chosen.name, known=known)
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
        if agreed.remote is not None:
            path: Path | None = resume.fetch_checkpoint(self.s3(), agreed.remote, root)
        elif agreed.local:
            path = root / agreed.local
            have = self._gate.gather("have checkpoint", path.exists(), halt=self._halt)
            without = [h for h, ok in zip(self._topology.hosts, have) if not ok]
            if without:
                raise LaunchError(
                    f"checkpoint {agreed.local} is not on {', '.join(without)}: use a shared "
                    "--checkpoint-dir, or --checkpoint-uri, or --resume off",
                    kind="ResumeError",
                )
        else:
            path = None
        events.emit("resume", path=str(path) if path else None)
        return path

    def watch(self, agreed: JobAgreement, interval: float) -> None:
        """Begin to upload checkpoints."""
        plan = self.plan
        if not plan.checkpoint_uri or plan.checkpoint_dir is None:
            return
        plan.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        self._uploader = Uploader(
            self._polite(),
            self._gate,
            node=self._topology.node_rank,
            root=plan.checkpoint_dir,
            target=self._target(plan.checkpoint_uri),
            rule=plan.rule,
            known=agreed.known,
        )
        self._uploader.start(interval)

    def finish(self, success: bool) -> None:
        """After the ranks: the last checkpoints; on success the final model, from node 0."""
        if self._uploader is not None:
            self._uploader.finish()
        sent = self._upload() if success and self._topology.node_rank == 0 else {}
        self._gate.gather("verified", True)
        for target, files in sent.items():
            self._seal(target, files)
        self._gate.gather("complete", True)

    def _seal(self, target: str, files: Mapping[str, int]) -> None:
        note = transfer.complete_note(files, job=self._topology.job, attempt=self._attempt)
        try:
            self._polite().put(note, f"{target}/{COMPLETE}")
        except S3Error as error:
            raise LaunchError(str(error), code=UPLOAD_UNVERIFIED, kind="UploadError") from error
        events.emit("complete", uri=target, files=len(files))

    def _upload(self) -> dict[str, dict[str, int]]:
        """What was uploaded, by its prefix."""
        sent: dict[str, dict[str, int]] = {}
        for directory, uri in self.plan.upload:
            files = transfer.local_files(directory)
            if not files:
                raise LaunchError(
                    f"--upload {directory}: there is nothing in it",
                    code=UPLOAD_UNVERIFIED,
                    kind="UploadError",
                )
            transfer.send_prefix(
                S3(self._env, self._halt, only_hard=True), directory, files, self._target(uri)
            )
            sent.setdefault(self._target(uri), {}).update(files)
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
