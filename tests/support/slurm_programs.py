"""The head node's own ssh and Slurm commands, for `inv` on this machine; and sshd on its nodes.

Each program is started in the head node's namespaces, with this machine's stdin and stdout.
"""

from __future__ import annotations

from tests.support.slurm_cluster import NODES, THIRD, SlurmCluster

#: An ordinary user, whose home is on shared storage and has the keys, as on clusters.
USER = "ann"
_HOME = f"/fsx/home/{USER}"
_KEYS = f"""
echo '{USER}:*:1000:1000::{_HOME}:/bin/bash' >>/etc/passwd
[ -e /cluster/host-key ] || ssh-keygen -q -t ed25519 -N '' -f /cluster/host-key
[ ! -e {_HOME} ] || exit 0
install -d -o 1000 -g 1000 -m 700 {_HOME} {_HOME}/.ssh
cd {_HOME}/.ssh
ssh-keygen -q -t ed25519 -N '' -f id_ed25519
cp id_ed25519.pub authorized_keys
echo "n* $(cut -d' ' -f1,2 /cluster/host-key.pub)" >known_hosts
chown -R 1000:1000 .
"""
_SSHD = """
mkdir -p /run/sshd
exec /usr/sbin/sshd -o ListenAddress="$(getent ahostsv4 "$0" | cut -d' ' -f1 | head -1)" \\
    -o HostKey=/cluster/host-key
"""
_COMMANDS = ("srun", "scontrol", "sacct")


def start_sshd(slurm: SlurmCluster) -> None:
    """Debian's OpenSSH server on every node, at the node's own address."""
    for node in ("c0", *NODES, THIRD):
        slurm.run("bash", "-euc", _KEYS, node=node)
    for node in (*NODES, THIRD):
        slurm.run("bash", "-euc", _SSHD, node, node=node)


def write_programs(slurm: SlurmCluster, user: str = "root") -> None:
    """`ssh` and Slurm's commands, run as this user of the head node."""
    member = slurm.members["c0"]
    member.reload()
    enter = f"exec nsenter --target {member.attrs['State']['Pid']} --all --"
    folder = slurm.root / "head"
    folder.mkdir(exist_ok=True)
    for name in ("ssh", *_COMMANDS):
        program = folder / name
        program.write_text(f'#!/bin/sh\n{enter} runuser -u {user} -- /usr/bin/{name} "$@"\n')
        program.chmod(0o755)
