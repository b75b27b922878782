"""A real Slurm (Debian's slurm-wlm and munge): a controller and three nodes, in containers.

All share one network namespace without any interface but loopback, so nothing of it is to be
reached from elsewhere. pyxis and enroot are in no package registry: stand-ins for them, which enter
a .sqsh with the same flags, are in slurm_node/ and say what they leave out.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from docker.models.containers import Container

from slipway.core import Project, silent
from slipway.engine import Engine, find_image_id, import_rootfs
from slipway.local_base.rootfs import make_rootfs, rootfs_id
from tests.support.clones import Clone

NODE = Path(__file__).with_name("slurm_node")
PACKAGES = ("slurm-wlm", "munge", "python3", "procps", "iproute2", "openssh-server")
NODES = ("n1", "n2")
#: Only in the partition `three`: a job that begins again on two nodes waits for those two.
THIRD = "n3"
ADDRESSES = {"c0": "10.77.0.1", "n1": "10.77.0.2", "n2": "10.77.0.3", THIRD: "10.77.0.4"}
LABELS = {"slipway.test": "slurm"}
KILL_WAIT = 12
#: A bound for waits that end earlier.
PATIENCE = 300.0

# task/affinity binds a task to one CPU unless it is told otherwise. A requeued job waits until its
# credentials have expired (slurm.conf(5), cred_expire: 120 s by default), longer than KillWait (30
# s): a node's slurmd sends SIGKILL to all steps of a job when KillWait is over, and attempts have
# one job id. SlurmdTimeout is Slurm's default: a dead node is down after minutes.
CONFIGURATION = f"""
ClusterName=test
SlurmctldHost=c0(10.77.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire={KILL_WAIT + 8}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
StateSaveLocation=/var/lib/slurm/c0
SlurmdSpoolDir=/var/lib/slurm/%n
SlurmdPidFile=/run/slurmd.%n.pid
SlurmctldPidFile=/run/slurmctld.pid
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
MailProg=/bin/true
MpiDefault=none
KillWait={KILL_WAIT}
SlurmdTimeout=300
MessageTimeout=5
ReturnToService=2
SchedulerParameters=batch_sched_delay=1,sched_interval=2
NodeName=n1 NodeAddr=10.77.0.2 Port=7001 CPUs=2 RealMemory=1000
NodeName=n2 NodeAddr=10.77.0.3 Port=7002 CPUs=2 RealMemory=1000
NodeName=n3 NodeAddr=10.77.0.4 Port=7003 CPUs=2 RealMemory=1000
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=three Nodes=n1,n2,n3 MaxTime=INFINITE State=UP
"""


def wait(true: Callable[[], bool], tell: Callable[[], str], every: float = 0.25) -> None:
    """Until it is true, looked at every so many seconds; fails with what `tell` says."""
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until, tell()
        time.sleep(every)


def node_image(engine: Engine, state: Path, scratch: Path) -> str:
    """The image of a node, from the host's own package sources, made once."""
    place = scratch / "images" / "local"
    place.mkdir(parents=True)
    (place / "packages.txt").write_text("\n".join(PACKAGES))
    shutil.copy(Project.at(NODE.parents[2]).local_base / "dpkg.cfg", place)
    recipe = Project(scratch, state)
    name = f"slipway.test/slurm-node:{rootfs_id(recipe)[:16]}"
    if find_image_id(engine, name) is None:
        with make_rootfs(recipe, silent, state / "logs" / "slurm-node.log").open("rb") as stream:
            import_rootfs(engine, stream, name)
    return name


@dataclass
class SlurmCluster:
    """The running cluster. `fsx` is /fsx on all nodes, `local` a folder a node at /local."""

    root: Path
    clone: Clone
    sqsh: Path
    volumes: Mapping[str, str] = field(default_factory=dict)
    members: dict[str, Container] = field(default_factory=dict)
    jobs: list[Submitted] = field(default_factory=list)

    @property
    def image(self) -> str:
        """The image that the .sqsh is of: NAME-BUILD.sqsh."""
        return self.sqsh.name.rpartition("-")[0]

    @property
    def fsx(self) -> Path:
        """Shared storage."""
        return self.root / "fsx"

    def local(self, node: str) -> Path:
        """A disk of the node's own."""
        return self.root / node

    def run(
        self,
        *command: str,
        at: str = "/fsx",
        node: str = "c0",
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """What a command prints on a node; it must succeed."""
        code, output = self.members[node].exec_run(
            list(command), workdir=at, environment=dict(environment or {})
        )
        assert isinstance(output, bytes)
        assert code == 0, f"{command}: {output.decode()}"
        return output.decode()

    def by_ssh(
        self, *arguments: str, host: str = "c0", code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run `inv` on this machine with --ssh to the head node, where a stand-in for ssh leads.

        `host` is c0, for root, or USER@c0.
        """
        task, *rest = arguments
        programs = self.root / "programs"
        path = {"PATH": f"{programs}:{os.environ['PATH']}"}
        clone = Clone(self.clone.root, self.clone.state, path)
        return clone.inv(task, "--ssh", host, *rest, code=code)

    def with_programs(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run `inv` on this machine with the head node's programs (slurm_programs.py) in PATH."""
        path = {"PATH": f"{self.root / 'head'}:{os.environ['PATH']}"}
        return Clone(self.clone.root, self.clone.state, path).inv(*words, code=code)

    def wait_for_nodes(self) -> None:
        """Until all nodes are idle."""
        wait(lambda: self.states() == 3 * "idle\n", self.states, every=0.5)

    def states(self) -> str:
        """What Slurm says of each node, one a line."""
        return self.run("sinfo", "--Node", "--noheader", "--partition=three", "--format=%T")


@dataclass(frozen=True)
class Submitted:
    """One job."""

    cluster: SlurmCluster
    id: str
    log: Path

    def facts(self) -> dict[str, str]:
        """What Slurm says of it."""
        line = self.cluster.run("scontrol", "show", "job", "--oneliner", self.id)
        return dict(re.findall(r"(\w+)=(\S*)", line))

    @property
    def told(self) -> str:
        """All that is known, for a person."""
        return "\n".join([str(self.facts()), *self.lines])

    @property
    def lines(self) -> list[str]:
        """What it has printed."""
        if not self.log.exists():
            return []
        return self.log.read_text(errors="replace").splitlines()

    def wait_for_line(self, text: str, count: int = 1) -> None:
        """Until `count` lines hold the text."""
        wait(lambda: sum(text in line for line in self.lines) >= count, lambda: self.told)

    def end(self) -> dict[str, str]:
        """What Slurm says of it once it has ended for good."""
        going = ("PENDING", "RUNNING", "COMPLETING", "REQUEUED")
        # A controller that is busy with a lost node may answer nothing for once.
        wait(
            lambda: self.facts().get("JobState", going[0]) not in going,
            lambda: self.told,
            every=0.5,
        )
        return self.facts()

    def limit(self, left: int) -> None:
        """Set its time limit, in full minutes, so that at least so many seconds are left."""
        hours, minutes, seconds = map(int, self.facts()["RunTime"].split(":"))
        limit = math.ceil((hours * 3600 + minutes * 60 + seconds + left) / 60)
        command = ["scontrol", "update", f"JobId={self.id}", f"TimeLimit={limit}"]
        # Refused for the moment in which a job is being requeued.
        wait(lambda: self.cluster.members["c0"].exec_run(command)[0] == 0, lambda: self.told)


def submit(
    cluster: SlurmCluster,
    folder: str,
    *words: str,
    sqsh: str = "",
    nodes: str = "2",
    environment: Mapping[str, str] | None = None,
) -> Submitted:
    """Write a script with `inv slurm.script` for so many nodes, and submit it in a folder of /fsx.

    `words` are options, "--", and the training script with its arguments.
    """
    place = cluster.fsx / folder
    place.mkdir(exist_ok=True)
    asked = _flags(cluster, nodes, sqsh)
    cluster.clone.inv("slurm.script", *asked, "--output", str(place / "job.sbatch"), *words)
    said = cluster.run(
        "sbatch", "--parsable", "job.sbatch", at=f"/fsx/{folder}", environment=environment
    )
    number = said.strip()
    cluster.jobs.append(Submitted(cluster, number, place / f"job-{number}.out"))
    return cluster.jobs[-1]


def submit_by_ssh(cluster: SlurmCluster, folder: str, *words: str) -> Submitted:
    """The same by `inv slurm.submit`, on two nodes."""
    place = ("--folder", f"/fsx/{folder}")
    ended = cluster.by_ssh("slurm.submit", *_flags(cluster, "2"), *place, *words)
    number = ended.stdout.strip()
    cluster.jobs.append(Submitted(cluster, number, cluster.fsx / folder / f"job-{number}.out"))
    return cluster.jobs[-1]


def _flags(cluster: SlurmCluster, nodes: str, sqsh: str = "") -> tuple[str, ...]:
    return (
        *(cluster.image, "--nodes", nodes, "--instance", "ml.g5.xlarge", "--job-name", "job"),
        *("--sqsh", sqsh or f"/fsx/images/{cluster.sqsh.name}"),
        # These nodes have no GPU, and no interface but loopback.
        *("--launch", "preflight=off", "--env", "GLOO_SOCKET_IFNAME=lo"),
    )


@contextlib.contextmanager
def running(
    engine: Engine,
    image: str,
    root: Path,
    clone: Clone,
    sqsh: Path,
    volumes: Mapping[str, str] | None = None,
) -> Iterator[SlurmCluster]:
    """Start the daemons, and remove the containers in the end.

    `volumes`: more of this machine's folders, and where all nodes have them.
    """
    cluster = SlurmCluster(root, clone, sqsh, volumes or {})
    settings = root / "cluster"
    settings.mkdir()
    (settings / "munge.key").write_bytes(os.urandom(128))
    (settings / "slurm.conf").write_text(CONFIGURATION)
    _remove_containers(engine)  # of tests that were killed
    try:
        for name in ("c0", *NODES, THIRD):
            _start(engine, image, cluster, name)
        _write_ssh(cluster)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        _remove_containers(engine)


#: What sshd does with the words after the host: joined by blanks, for the user's shell. Names,
#: keys and connections are not in it.
SSH = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
case $2 in *@*) user=${{2%@*}} ;; *) user=root ;; esac
shift 2
exec nsenter --target {pid} --all -- runuser -l "$user" -c "$*"
"""


def _write_ssh(cluster: SlurmCluster) -> None:
    member = cluster.members["c0"]
    member.reload()
    program = cluster.root / "programs" / "ssh"
    program.parent.mkdir()
    program.write_text(SSH.format(pid=member.attrs["State"]["Pid"]))
    program.chmod(0o755)


def _remove_containers(engine: Engine) -> None:
    for container in engine.client.containers.list(
        all=True, filters={"label": "slipway.test=slurm"}
    ):
        container.remove(force=True)


def _start(engine: Engine, image: str, cluster: SlurmCluster, name: str) -> None:
    cluster.local(name).mkdir()
    folders = {
        cluster.root / "cluster": "/cluster",
        cluster.fsx: "/fsx",
        cluster.local(name): "/local",
        NODE: "/node",
        NODE / "srun": "/usr/local/bin/srun",
        NODE / "enroot": "/usr/local/bin/enroot",
    }
    volumes = {
        str(place): {"bind": target, "mode": "rw"}
        for place, target in (*folders.items(), *cluster.volumes.items())
    }
    first = cluster.members.get("c0")
    cluster.members[name] = engine.client.containers.run(
        image,
        ["/node/boot", name],
        detach=True,
        init=True,
        network_mode=f"container:{first.id}" if first else "none",
        labels=LABELS,
        hostname=None if first else "c0",
        extra_hosts=None if first else ADDRESSES,
        # SYS_NICE: slurmstepd binds the tasks of other users to CPUs.
        cap_add=["SYS_ADMIN" if first else "NET_ADMIN", "SYS_NICE"],
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        # Loop devices, their control, and /dev/fuse.
        device_cgroup_rules=["b 7:* rwm", "c 10:237 rwm", "c 10:229 rwm"],
        volumes=volumes,
    )
    # Slurm's commands answer as soon as the controller and this node's munge do.
    member = cluster.members[name]
    wait(
        lambda: member.exec_run(["scontrol", "ping"])[0] == 0,
        lambda: str(member.logs().decode()),
    )
