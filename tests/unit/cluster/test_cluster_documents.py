"""A cluster's documents: what AWS's models take, what the policies allow, what the scripts do."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from slipway.cluster.documents.cluster_file import ClusterFile, read_cluster_file
from slipway.cluster.documents.document_set import (
    ClusterDocuments,
    make_cluster_documents,
    write_cluster_documents,
)
from slipway.core import Project, SlipwayError, UsageError
from slipway.storage.profiles import NVME, PROFILES, DataPlaces
from tests.support.aws_control_plane import check_request
from tests.support.cluster_samples import LARGE_CLUSTER, SMALL_CLUSTER

ROOT = Path(__file__).parents[3]
LIFECYCLE = ROOT / "slipway/cluster/documents/lifecycle"


def cluster_of(tmp_path: Path, text: str) -> ClusterFile:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    return read_cluster_file(path)


def documents_of(tmp_path: Path, text: str) -> ClusterDocuments:
    return make_cluster_documents(cluster_of(tmp_path, text), Project.at(ROOT))


@pytest.mark.parametrize("text", [SMALL_CLUSTER, LARGE_CLUSTER, f"{SMALL_CLUSTER}slurm: legacy\n"])
def test_every_request_is_one_that_the_model_of_its_call_takes(tmp_path: Path, text: str) -> None:
    files = documents_of(tmp_path, text).files
    calls = {
        "create-cluster.json": ("sagemaker", "CreateCluster"),
        "create-role.json": ("iam", "CreateRole"),
        "create-file-system.json": ("fsx", "CreateFileSystem"),
    }
    checked = {name: call for name, call in calls.items() if name in files}
    assert len(checked) == (2 if text == LARGE_CLUSTER else 3)
    for name, (service, call) in checked.items():
        assert check_request(service, call, json.loads(files[name])) == []
    for call, parameters in json.loads(files["security-group.json"]).items():
        assert check_request("ec2", call, parameters) == []


def test_slurms_configuration_is_in_the_call(tmp_path: Path) -> None:
    request = json.loads(documents_of(tmp_path, LARGE_CLUSTER).files["create-cluster.json"])
    assert request["Orchestrator"] == {"Slurm": {"SlurmConfigStrategy": "Merge"}}
    assert request["NodeProvisioningMode"] == "Continuous"
    assert {
        group["InstanceGroupName"]: group["SlurmConfig"] for group in request["InstanceGroups"]
    } == {
        "controller": {"NodeType": "Controller"},
        "login": {"NodeType": "Login"},
        "big": {"NodeType": "Compute", "PartitionNames": ["gpu"]},
        "small": {"NodeType": "Compute", "PartitionNames": ["small"]},
    }
    big = request["InstanceGroups"][2]
    assert big["InstanceStorageConfigs"] == [
        {"EbsVolumeConfig": {"VolumeSizeInGB": 1000}},
        {
            "FsxLustreConfig": {
                "DnsName": "fs-0123456789abcdef0.fsx.us-gov-west-1.amazonaws.com",
                "MountName": "abcdefgh",
                "MountPath": "/fsx",
            }
        },
    ]
    assert (
        big["ExecutionRole"] == "arn:aws-us-gov:iam::111122223333:role/slipway-train-us-gov-west-1"
    )
    assert big["LifeCycleConfig"] == {
        "SourceS3Uri": "s3://sagemaker-train-111122223333-us-gov-west-1/lifecycle",
        "OnInitComplete": "on_init_complete.sh",
    }
    assert request["VpcConfig"]["Subnets"] == ["subnet-0123456789abcdef0"]


def test_legacy_has_slurms_configuration_in_a_file_and_starts_it_itself(tmp_path: Path) -> None:
    files = documents_of(tmp_path, f"{SMALL_CLUSTER}slurm: legacy\nlogin: ml.c5.large\n").files
    request = json.loads(files["create-cluster.json"])
    assert not {"Orchestrator", "NodeProvisioningMode"} & set(request)
    assert all(
        group["LifeCycleConfig"].get("OnCreate") == "on_create.sh" and "SlurmConfig" not in group
        for group in request["InstanceGroups"]
    )
    assert json.loads(files["lifecycle/provisioning_parameters.json"]) == {
        "version": "1.0.0",
        "workload_manager": "slurm",
        "controller_group": "controller",
        "login_group": "login",
        "worker_groups": [{"instance_group_name": "workers", "partition_name": "workers"}],
        "fsx_dns_name": "fs-00000000000000000.fsx.us-west-2.amazonaws.com",
        "fsx_mountname": "zeros",
    }
    assert "lifecycle/on_create.sh" in files
    assert "lifecycle/on_create.sh" not in documents_of(tmp_path, SMALL_CLUSTER).files


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("name: train", "name: Train", 1, "name: 'Train'"),
        ("name: train", "name: " + "a" * 31, 1, "a name of 30 characters at most"),
        ("name: train\n", "", 1, "name is missing"),
        ("us-west-2", "us-west-9", 2, "AWS has no region 'us-west-9' (did you mean us-west-"),
        ('"111122223333"', "111122223333", 3, "twelve digits, in quotes"),
        ("usw2-az2", "us-west-2a", 4, "the id, not the name"),
        ("ml.c5.xlarge", "c5.xlarge", 5, "controller: 'c5.xlarge'"),
        ("count: 4", "cuont: 4", 7, "no entry of a cluster's file (did you mean count?)"),
        ("count: 4", "count: 0", 7, "groups.workers.count"),
        ("count: 4", "count: '4'", 7, "groups.workers.count"),
        ("workers:", "login:", 7, "login is no group of workers"),
        ("ml.p5.48xlarge", "ml.p5.49xlarge", 7, "InstanceGroups[1].InstanceType is"),
        ("\n  workers", "\n  'a/b'", 7, "groups.a/b"),
    ],
)
def test_a_mistake_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        documents_of(tmp_path, SMALL_CLUSTER.replace(old, new, 1))
    assert f"cluster.yaml:{line}: " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("storage: {capacity_gib: 1300}", "no file system of 1300 GiB"),
        ("storage: {file_system: fs-01234567}", "belong together"),
        ("network: {subnet: subnet-1}", "network.security_group is missing"),
        ("network: {subnet: subnet-01234567, sg: x}", "network.sg is no entry"),
        ("network: mine", "network: input should be 'make'"),
        ("prices: {ml.p5.4xlarge: 1}", "no group is of ml.p5.4xlarge (did you mean"),
        ("prices: {ml.p5.48xlarge: cheap}", "prices.ml.p5.48xlarge: 'cheap'"),
        ("slurm: new", "'api' or 'legacy'"),
        ("color: red", "color is no entry"),
    ],
)
def test_a_part_that_cannot_be_is_named_with_its_line(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        cluster_of(tmp_path, f"{SMALL_CLUSTER}{text}\n")
    assert "cluster.yaml:8: " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n", "name: [", "a: &x 1\n"])
def test_a_file_that_is_no_cluster_is_one_paragraph(tmp_path: Path, text: str) -> None:
    with pytest.raises(SlipwayError, match=r"cluster\.yaml:1: "):
        cluster_of(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_cluster_file(tmp_path / "gone.yaml")


def test_prices_keep_their_fractions(tmp_path: Path) -> None:
    cluster = cluster_of(tmp_path, LARGE_CLUSTER)
    assert str(cluster.price("ml.p5en.48xlarge")) == "84.8"
    assert str(cluster.price("ml.g5.8xlarge")) == "3"
    assert cluster.price("ml.m5.4xlarge") is None


#: Statements on every resource, with the reason that no other is possible.
EVERY_RESOURCE = {
    *("SendMetrics", "OpenShells", "JoinNetwork", "LogIn"),
    *("DescribeFileSystems", "LogInToRegistry", "ReadQuotas", "LookAtNetworks"),
    "LogInToPublicRegistry",
}


@pytest.mark.parametrize("text", [SMALL_CLUSTER, LARGE_CLUSTER])
def test_a_policy_allows_named_actions_on_named_things(tmp_path: Path, text: str) -> None:
    policies = documents_of(tmp_path, text).policies
    permissions = [permission for each in policies.values() for permission in each]
    assert all(p.reason and p.source for p in permissions)
    assert [p.sid for p in permissions if any("*" in action for action in p.actions)] == []
    assert {p.sid for p in permissions if "*" in p.resources} == EVERY_RESOURCE
    assert len({p.sid for p in permissions}) == len(permissions)
    texts = [
        json.dumps([p.statement() for p in each])
        for name, each in policies.items()
        if not name.startswith("operator")
    ]
    assert sum(map(len, texts)) < 10_240  # all inline policies of a role together (IAM quotas)


def resources(documents: ClusterDocuments, sid: str) -> tuple[str, ...]:
    (found,) = [p for each in documents.policies.values() for p in each if p.sid == sid]
    return found.resources


def test_nodes_pull_from_their_own_repositories_and_read_their_own_bucket(tmp_path: Path) -> None:
    small, large = documents_of(tmp_path, SMALL_CLUSTER), documents_of(tmp_path, LARGE_CLUSTER)
    place = "arn:aws:ecr:us-west-2:111122223333:repository"
    assert resources(small, "PullOwn") == (f"{place}/sagemaker-slipway/*",)
    assert resources(small, "ReadScripts") == (
        "arn:aws:s3:::sagemaker-train-111122223333-us-west-2/*",
    )
    sids = {p.sid for each in small.policies.values() for p in each}
    assert not {"PullBases", "UseData", "ListData"} & sids
    assert [name.partition("repository/")[2] for name in resources(large, "PullOwn")] == [
        "team/*",
        "shared",
    ]
    assert all(":446045086412:" in arn or ":442386744353:" in arn
               for arn in resources(large, "PullBases"))  # fmt: skip
    assert resources(large, "UseData") == ("arn:aws-us-gov:s3:::train-data/*",)


def test_only_sagemaker_takes_the_nodes_role_and_only_named_accounts_pull(tmp_path: Path) -> None:
    files = documents_of(tmp_path, LARGE_CLUSTER).files
    trust = json.loads(json.loads(files["create-role.json"])["AssumeRolePolicyDocument"])
    assert trust["Statement"] == [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ]
    (statement,) = json.loads(files["repository-policy.json"])["Statement"]
    assert statement["Principal"] == {"AWS": ["arn:aws-us-gov:iam::444455556666:root"]}
    assert "repository-policy.json" not in documents_of(tmp_path, SMALL_CLUSTER).files


def test_documents_are_files_or_one_json_and_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(SMALL_CLUSTER)
    write_cluster_documents(ROOT, str(path), "", explain=False)
    printed = json.loads(capsys.readouterr().out)
    write_cluster_documents(ROOT, str(path), str(tmp_path / "out"), explain=True)
    explained = capsys.readouterr().out
    assert "policy-pull.json, PullOwn: ecr:BatchCheckLayerAvailability" in explained
    written = {
        file.relative_to(tmp_path / "out").as_posix()
        for file in (tmp_path / "out").rglob("*")
        if file.is_file()
    }
    assert written == set(printed)
    assert printed["create-cluster.json"] == json.loads(
        (tmp_path / "out/create-cluster.json").read_text()
    )


class Node:
    """A folder that a script takes for its root, with programs that only note how they are called.

    `mounted` are the paths that are mount points.
    """

    def __init__(self, folder: Path, mounted: tuple[str, ...], programs: dict[str, str]) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.calls = folder / "calls"
        self.calls.touch()
        self.program("mountpoint", f"case $2 in {'|'.join(self.at(m) for m in mounted)}) ;; "
                     "*) exit 1;; esac")  # fmt: skip
        for name, body in programs.items():
            self.program(name, f'echo "{name} $*" >> {self.calls}; {body}')

    def at(self, path: str) -> str:
        return f"{self.root}{path}"

    def program(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def start(
        self, script: str, folder: Path = LIFECYCLE, **environment: str
    ) -> subprocess.Popen[str]:
        env = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", **environment}
        return subprocess.Popen(
            ["bash", str(folder / script)],
            env={**env, "SLIPWAY_ROOT": str(self.root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, script: str, folder: Path = LIFECYCLE, **environment: str) -> str:
        process = self.start(script, folder, **environment)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        return output

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines()


DOCKER = {
    "dockerd": "",
    "docker": 'cat "$SLIPWAY_ROOT/reported"',
    "systemctl": "case $1 in cat) exit 1;; restart) "
    f'echo {NVME}/docker/data-root > "$SLIPWAY_ROOT/reported";; esac',
}


def test_container_data_go_where_storage_move_puts_them(tmp_path: Path) -> None:
    node = Node(tmp_path, PROFILES["hyperpod"].disks, DOCKER)
    (node.root / "reported").write_text("/var/lib/docker\n")
    for folder in ("docker", "enroot"):
        (node.root / "etc" / folder).mkdir(parents=True)
    daemon = node.root / "etc/docker/daemon.json"
    daemon.write_text('{"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}')
    enroot = node.root / "etc/enroot/enroot.conf"
    enroot.write_text(
        "#ENROOT_RUNTIME_PATH /run\nENROOT_RUNTIME_PATH /tmp/enroot\nENROOT_TEMP_PATH /tmp\n"
        "ENROOT_SQUASH_OPTIONS -comp lzo\n"
    )
    node.run("container_storage.sh")
    places = DataPlaces(Path(PROFILES["hyperpod"].disks[0]))
    assert json.loads(daemon.read_text()) == {
        "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}},
        "data-root": str(places.docker),
    }
    units = node.root / "etc/systemd/system"
    assert (
        f"DOCKER_TMPDIR={places.docker_tmp}\n"
        in (units / "docker.service.d/slipway.conf").read_text()
    )
    assert (
        f"--root {places.containerd}\n" in (units / "containerd.service.d/slipway.conf").read_text()
    )
    lines = [line.split(None, 1) for line in enroot.read_text().splitlines()]
    active = {line[0]: line[1] for line in lines if not line[0].startswith("#")}
    assert active == {**places.enroot(None), "ENROOT_SQUASH_OPTIONS": "-comp lzo"}
    for place in places.enroot_folders(None):
        assert Path(node.at(str(place))).stat().st_mode & 0o7777 == 0o1777
    assert Path(node.at(str(places.docker))).is_dir()


def test_a_second_run_changes_and_restarts_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path, (NVME,), DOCKER)
    (node.root / "reported").write_text("/var/lib/docker\n")
    (node.root / "etc/enroot").mkdir(parents=True)
    (node.root / "etc/enroot/enroot.conf").touch()
    node.run("container_storage.sh")

    def state() -> list[tuple[str, int, int]]:
        return sorted(
            (str(path), path.stat().st_ino, path.stat().st_mtime_ns)
            for path in (node.root / "etc").rglob("*")
        )

    first = state()
    restarts = [call for call in node.called() if "restart" in call]
    node.run("container_storage.sh")
    assert state() == first
    assert [call for call in node.called() if "restart" in call] == restarts
    assert len(restarts) == 1
    # A run that was cut before the restart leaves files that are right, and a daemon that is not.
    (node.root / "reported").write_text("/var/lib/docker\n")
    node.run("container_storage.sh")
    assert len([call for call in node.called() if "restart" in call]) == 2


def test_without_a_large_disk_nothing_is_moved(tmp_path: Path) -> None:
    node = Node(tmp_path, ("/nowhere",), DOCKER)
    assert "no large disk" in node.run("container_storage.sh")
    assert list(node.root.iterdir()) == []


HOME = {"usermod": "", "chown": "", "install": 'while [ "$1" ]; do last=$1; shift; done; '
        'mkdir -p "$last"'}  # fmt: skip


def test_the_shared_home_has_one_key_whoever_comes_first(tmp_path: Path) -> None:
    """Eight nodes at once: they share the folder, as nodes share /fsx."""
    node = Node(tmp_path, ("/fsx",), HOME)
    started = [node.start("shared_home.sh", SLIPWAY_USER="nobody") for _ in range(8)]
    assert [process.wait() for process in started] == [0] * 8, started[0].communicate()
    for process in started:
        assert process.stdout is not None
        process.stdout.close()
    ssh = node.root / "fsx/nobody/.ssh"
    assert (ssh / "authorized_keys").read_text() == (ssh / "id_ed25519.pub").read_text()
    assert (ssh / "id_ed25519").stat().st_mode & 0o777 == 0o600
    assert not list(ssh.glob("*.new*"))
    assert "usermod -d /fsx/nobody nobody" in node.called()


def test_a_home_that_is_not_there_fails_and_says_so(tmp_path: Path) -> None:
    node = Node(tmp_path, ("/nowhere",), HOME)
    process = node.start("shared_home.sh", SLIPWAY_WAIT="0", SLIPWAY_USER="nobody")
    output, _ = process.communicate()
    assert process.returncode == 1
    assert "/fsx is not mounted" in output


def legacy_node(tmp_path: Path, address: str) -> Node:
    node = Node(tmp_path, ("/fsx",), {
        "hostname": f"echo {address}", "systemctl": "test $1 != cat", **HOME,
    })  # fmt: skip
    groups: list[dict[str, Any]] = [
        {"Name": name, "Instances": [{"CustomerIpAddress": ip} for ip in addresses]}
        for name, addresses in (
            ("controller", ["10.0.0.1"]),
            ("login", ["10.0.0.2"]),
            ("workers", ["10.0.0.3", "10.0.0.4"]),
        )
    ]
    (tmp_path / "resources.json").write_text(json.dumps({"InstanceGroups": groups}))
    return node


@pytest.mark.parametrize(
    ("address", "service"),
    [("10.0.0.1", "slurmctld"), ("10.0.0.2", "slurmd"), ("10.0.0.4", "slurmd")],
)
def test_legacy_starts_slurm_as_the_nodes_group_says(
    tmp_path: Path, address: str, service: str
) -> None:
    node = legacy_node(tmp_path, address)
    scripts = tmp_path / "scripts"
    for name, text in documents_of(
        tmp_path, f"{SMALL_CLUSTER}slurm: legacy\nlogin: ml.c5.large\n"
    ).files.items():
        if name.startswith("lifecycle/"):
            path = scripts / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    output = node.run(
        "on_create.sh",
        scripts / "lifecycle",
        SAGEMAKER_RESOURCE_CONFIG_PATH=str(tmp_path / "resources.json"),
        SLIPWAY_USER="nobody",
    )
    assert f"systemctl enable --now {service}" in node.called()
    unit = node.root / "etc/systemd/system/slurmd.service.d/slipway.conf"
    if service == "slurmd":
        assert "--conf-server 10.0.0.1\"" in unit.read_text()  # fmt: skip
    assert output.endswith("done\n")
    assert (node.root / "var/log/provision/slipway.log").read_text().endswith("done\n")
