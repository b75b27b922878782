"""What enroot and pyxis do by default, and the stand-ins in slurm_node/ keep: one table.

Read in NVIDIA/enroot at 8ea147d (4.1.2) and NVIDIA/pyxis at 1075199 (0.24.0), seen in a container
of that enroot. `probe` is a Python expression that the training script evaluates in its container.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ContainerRule:
    """One rule: what holds, where it stands, how a container shows it, and what it shows."""

    what: str
    source: str
    probe: str
    shows: object


RULES = (
    ContainerRule(
        "the command runs below a login shell, so /etc/profile.d was read",
        "enroot.in: ENROOT_LOGIN_SHELL true; runtime.sh: enroot-switchroot --login",
        "os.environ.get('FROM_A_PROFILE')",
        "yes",
    ),
    ContainerRule(
        "/tmp is memory",
        "conf/mounts/10-system.fstab",
        "[line.split(' - ')[1].split()[0] for line in open('/proc/self/mountinfo')"
        " if line.split()[4] == '/tmp'][-1]",
        "tmpfs",
    ),
    ContainerRule(
        "/tmp is the user's, with mode 755",
        "conf/mounts/10-system.fstab: mode=755",
        "oct(os.stat('/tmp').st_mode & 0o7777)",
        "0o755",
    ),
    ContainerRule(
        "there is no PID namespace, so the launcher is not process 1",
        "conf/enroot.conf.in: ENROOT_UNSHARE_PID no",
        "b'launcher' in open('/proc/1/cmdline', 'rb').read()",
        False,
    ),
    ContainerRule(
        "with --rw ranks write below /",
        "doc/cmd/start.md: --rw; memory where it starts from the file",
        "open('/written', 'w').write('abc')",
        3,
    ),
    ContainerRule(
        "the image's own environment reaches the command",
        "src/runtime.sh: _do_environ reads the rootfs' /etc/environment",
        "os.environ.get('SLIPWAY_PYTHON')",
        "/opt/venv/bin/python",
    ),
)
