"""From a layout of ranks to the exact commands that start them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.causes import LaunchUsageError
from launcher.platforms import Topology

TORCHRUN, DEEPSPEED, PYTHON = "torchrun", "deepspeed", "python"

#: Where torchrun's failures are written down (user_python/torchrun_main.py).
REPORT = "LAUNCH_ELASTIC_REPORT"
#: Put before PATH for scripts that run torchrun themselves.
SHIMS = Path(__file__).resolve().parents[2] / "shims"
#: Scripts that run in the Python of the user's code, not in the launcher's.
USER_PYTHON = Path(__file__).resolve().parents[1] / "user_python"
#: Put before PYTHONPATH for the ranks: its sitecustomize lets them show their stacks.
STACK_SITE = USER_PYTHON / "site"


@dataclass(frozen=True)
class RankLayout:
    """Where each rank of the job is. `procs` holds the processes of every node, in node order.

    `visible` is this node's CUDA_VISIBLE_DEVICES, where it is restricted to some GPUs.
    """

    node_rank: int
    procs: tuple[int, ...]
    hosts: tuple[str, ...]
    master: str
    port: int
    run_id: str
    visible: tuple[str, ...] = ()

    @property
    def nproc(self) -> int:
        """Ranks on this node."""
        return self.procs[self.node_rank]

    @property
    def first_rank(self) -> int:
        """The global rank of this node's local rank 0."""
        return sum(self.procs[: self.node_rank])

    @property
    def world(self) -> int:
        """Ranks in the job."""
        return sum(self.procs)

    @property
    def nodes(self) -> int:
        """Nodes in the job."""
        return len(self.procs)


@dataclass(frozen=True)
class RankCommand:
    """One process to start. `rank` is -1 for a runner that starts the ranks itself."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    rank: int = -1


def layout_ranks(
    topology: Topology,
    procs: Sequence[int],
    *,
    port: int,
    attempt: int,
    visible: Sequence[str] = (),
) -> RankLayout:
    """The ranks of `topology`; a job on one node meets on loopback, where no DNS is needed."""
    return RankLayout(
        node_rank=topology.node_rank,
        procs=tuple(procs),
        hosts=topology.hosts,
        master=topology.master if topology.nodes > 1 else "127.0.0.1",
        port=port,
        # The attempt keeps a requeued job from meeting leftovers of its earlier self.
        run_id=f"{topology.job}-{attempt}",
        visible=tuple(visible),
    )


def choose_runner(runner: str, script: str, cwd: Path = Path()) -> str:
    """Resolve "auto": shell scripts start once per node, Python scripts under torchrun."""
    if runner != "auto":
        return runner
    return PYTHON if is_node_command(script, cwd) else TORCHRUN


def is_node_command(script: str, cwd: Path = Path()) -> bool:
    """Whether a script is a program of its own, and not Python: a .sh, or by its first line.

    One that has yet to be fetched is taken for what sagemaker-training takes it for: anything but
    a .py is a command.
    """
    if not script or script.endswith((".py", ".sh")):
        return script.endswith(".sh")
    try:
        with (cwd / script).open("rb") as file:
            text = file.read(1 << 20)
    except OSError:
        return True
    first = text.split(b"\n", 1)[0]
    if first.startswith(b"#!"):
        return b"python" not in first
    try:
        compile(text, script, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return True
    return False


def default_nproc(runner: str, gpus: int) -> int:
    """`--nproc auto`: one rank per GPU, one on CPU; the python runner is one process per node."""
    return 1 if runner == PYTHON else max(1, gpus)


@dataclass(frozen=True)
class RankProgram:
    """What ranks run: a Python script, a module by its name, or a program of its own.

    `command` says the latter (`is_node_command`).
    """

    script: str
    args: Sequence[str] = ()
    module: bool = False
    command: bool = False


def build_rank_commands(
    runner: str,
    ranks: RankLayout,
    program: RankProgram,
    *,
    python: str,
    log_dir: Path,
    max_restarts: int = 0,
) -> list[RankCommand]:
    """What to execute on this node. UsageError where the runner cannot do what was asked."""
    script, args, module = program.script, program.args, program.module
    if max_restarts and runner != TORCHRUN:
        raise LaunchUsageError("--max-restarts needs the torchrun runner")
    command = not module and (program.command or script.endswith(".sh"))
    # A script may start torchrun by itself, too (os.system): see shims/torchrun.
    report = {REPORT: str(log_dir / "elastic.json")}
    if runner == PYTHON and command:
        return _node_scripts(ranks, script, args, report)
    if command:
        raise LaunchUsageError(f"{runner} starts Python scripts; run {script} with --runner python")
    script_argv = [*(("-m",) if module else ()), script, *args]
    if runner == PYTHON:
        return [
            RankCommand(
                (python, "-u", *script_argv),
                {**_rank_env(ranks, n), **report},
                ranks.first_rank + n,
            )
            for n in range(ranks.nproc)
        ]
    if runner == TORCHRUN:
        return [_torchrun(ranks, python, script_argv, log_dir, max_restarts)]
    return [_deepspeed(ranks, python, script_argv, log_dir)]


def _torchrun(
    ranks: RankLayout,
    python: str,
    script_argv: Sequence[str],
    log_dir: Path,
    max_restarts: int,
) -> RankCommand:
    """torchrun's own command line.

    A -- before the script: argparse looks at every word for its own options, even behind the
    script, and ends with "ambiguous option" where one abbreviates several of them (--log).
    """
    # torchrun_main.py is torchrun's own main, plus a record of every failed rank's real exit code.
    argv = [python, str(USER_PYTHON / "torchrun_main.py")]
    env = {REPORT: str(log_dir / "elastic.json")}
    argv += [f"--nnodes={ranks.nodes}", f"--nproc_per_node={ranks.nproc}"]
    if max_restarts and ranks.nodes > 1:
        # Only the c10d rendezvous lets the other nodes join a restart. Its host names are given
        # outright: an agent's own guess is getfqdn(), which other containers may not resolve.
        argv += [
            "--rdzv_backend=c10d",
            f"--rdzv_endpoint={ranks.master}:{ranks.port}",
            f"--rdzv_conf=is_host={int(ranks.node_rank == 0)}",
            f"--local_addr={ranks.hosts[ranks.node_rank]}",
        ]
        # Else ranks meet in the agents' own store, where the addresses of the failed attempt are
        # still found: "connection refused", or a wait without end.
        env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    else:
        argv += [
            f"--node_rank={ranks.node_rank}",
            f"--master_addr={ranks.master}",
            f"--master_port={ranks.port}",
        ]
    argv += [f"--rdzv_id={ranks.run_id}", f"--max_restarts={max_restarts}"]
    argv += [f"--log_dir={log_dir}", "--redirects=3"]
    if script_argv[0] == "-m":
        argv.append("-m")
        script_argv = script_argv[1:]
    return RankCommand((*argv, "--", *script_argv), env)


def hostfile_text(ranks: RankLayout) -> str:
    """DeepSpeed's hostfile: one ``name slots=N`` per node."""
    slots = [max(numbers) + 1 for numbers in _slots(ranks)]
    return "".join(f"{host} slots={n}\n" for host, n in zip(ranks.hosts, slots))


def _slots(ranks: RankLayout) -> list[list[int]]:
    """Every node's GPUs by number: 0, 1, 2..., on this node those that it is restricted to.

    deepspeed sets CUDA_VISIBLE_DEVICES to a node's slots, whatever it was before; of other nodes
    it takes only how many there are.
    """
    slots = [list(range(n)) for n in ranks.procs]
    own = ranks.visible[: ranks.nproc]
    if len(own) == ranks.nproc:
        if not all(item.isdecimal() for item in own):
            raise LaunchUsageError(
                "deepspeed knows GPUs by their numbers only, and CUDA_VISIBLE_DEVICES is "
                f"{','.join(own)}: give numbers, or use --runner torchrun"
            )
        slots[ranks.node_rank] = [int(item) for item in own]
    return slots


def _deepspeed(
    ranks: RankLayout, python: str, script_argv: Sequence[str], log_dir: Path
) -> RankCommand:
    """deepspeed's own command line.

    Two times --, because two argparsers read the script's words: the runner's, which takes the
    first -- for its own and hands the second one on to deepspeed.launcher.launch as if it were the
    script.
    """
    argv = [python, "-m", "deepspeed.launcher.runner", "--no_ssh"]
    argv += [f"--hostfile={log_dir / 'hostfile'}", f"--node_rank={ranks.node_rank}"]
    argv += [f"--master_addr={ranks.master}", f"--master_port={ranks.port}"]
    slots = _slots(ranks)
    if slots[ranks.node_rank] != list(range(ranks.nproc)):
        listed = (",".join(map(str, numbers)) for numbers in slots)
        argv.append(f"--include={'@'.join(map(':'.join, zip(ranks.hosts, listed)))}")
    argv += [f"--enable_each_rank_log={log_dir}"]
    if script_argv[0] == "-m":
        argv.append("--module")
        script_argv = script_argv[1:]
    return RankCommand((*argv, "--", "--", *script_argv), {})


def _node_scripts(
    ranks: RankLayout, script: str, args: Sequence[str], report: Mapping[str, str]
) -> list[RankCommand]:
    # A script for a whole node, which starts ranks itself: it is none, and a torchrun in it must
    # not find a rank's variables. Failures of that torchrun are written down (shims/torchrun).
    return [
        RankCommand(
            (*_node_command(script), *args), {**_node_env(ranks), **report}, ranks.first_rank + n
        )
        for n in range(ranks.nproc)
    ]


def _node_command(script: str) -> tuple[str, ...]:
    """A .sh is bash's, executable or not; anything else starts by its own first line.

    Archives lose the right to execute on their way from some machines, so it is given; a program
    without a first line of that kind is the shell's (execve fails with ENOEXEC, sh goes on).
    """
    if script.endswith(".sh"):
        return "/bin/bash", script
    path = script if script.startswith("/") else f"./{script}"
    return "/bin/sh", "-c", '[ -x "$0" ] || chmod u+x "$0"; exec "$0" "$@"', path


def _node_env(ranks: RankLayout) -> dict[str, str]:
    """What launch scripts need for torchrun's own options."""
    return {
        "NODE_RANK": str(ranks.node_rank),
        "NNODES": str(ranks.nodes),
        "MASTER_ADDR": ranks.master,
        "MASTER_PORT": str(ranks.port),
    }


def _rank_env(ranks: RankLayout, local: int) -> dict[str, str]:
    """The variables that torch.distributed's env:// reads, as torchrun sets them."""
    return {
        "RANK": str(ranks.first_rank + local),
        "LOCAL_RANK": str(local),
        "WORLD_SIZE": str(ranks.world),
        "LOCAL_WORLD_SIZE": str(ranks.nproc),
        "GROUP_RANK": str(ranks.node_rank),
        "NODE_RANK": str(ranks.node_rank),
        "MASTER_ADDR": ranks.master,
        "MASTER_PORT": str(ranks.port),
    }
