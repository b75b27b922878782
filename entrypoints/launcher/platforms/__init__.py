"""What SageMaker, Slurm or one machine give to a job: nodes, environment, devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher import lazy_face

if TYPE_CHECKING:
    from launcher.platforms.devices import RESTRICTIONS, Gpus, count_gpus, visible_ids
    from launcher.platforms.hostlist import natural_key
    from launcher.platforms.hostname import preload_hostname
    from launcher.platforms.hyperparameters import (
        LAUNCH_PREFIX,
        decode_hyperparameters,
        named,
        script_hyperparameters,
        to_arguments,
        truthy,
    )
    from launcher.platforms.image_record import with_image_path
    from launcher.platforms.local_disk import LocalDisk, choose_disk, small_scratch
    from launcher.platforms.ml_dir import MlDir, find_ml_dir, read_json
    from launcher.platforms.network_env import (
        network_variables,
        network_warnings,
        read_network_stack,
    )
    from launcher.platforms.places import NO_LOCKS, check_file_owner, make_place, path_word
    from launcher.platforms.pool import (
        PLACE_VARIABLE,
        AttemptPlace,
        NodePool,
        first_topology,
        make_pool,
        muster_port,
        read_place,
        rendezvous_port,
    )
    from launcher.platforms.rank_environment import (
        EnvironmentChange,
        apply_changes,
        network_changes,
        route_changes,
        slurm_changes,
        stale_variables,
        unless_set,
    )
    from launcher.platforms.s3_hosts import s3_host
    from launcher.platforms.sagemaker_env import sagemaker_variables
    from launcher.platforms.topology import (
        Topology,
        local_topology,
        sagemaker_topology,
        slurm_topology,
    )

__all__ = [
    "LAUNCH_PREFIX",
    "NO_LOCKS",
    "PLACE_VARIABLE",
    "RESTRICTIONS",
    "AttemptPlace",
    "EnvironmentChange",
    "Gpus",
    "LocalDisk",
    "MlDir",
    "NodePool",
    "Topology",
    "apply_changes",
    "check_file_owner",
    "choose_disk",
    "count_gpus",
    "decode_hyperparameters",
    "find_ml_dir",
    "first_topology",
    "local_topology",
    "make_place",
    "make_pool",
    "muster_port",
    "named",
    "natural_key",
    "network_changes",
    "network_variables",
    "network_warnings",
    "path_word",
    "preload_hostname",
    "read_json",
    "read_network_stack",
    "read_place",
    "rendezvous_port",
    "route_changes",
    "s3_host",
    "sagemaker_topology",
    "sagemaker_variables",
    "script_hyperparameters",
    "slurm_changes",
    "slurm_topology",
    "small_scratch",
    "stale_variables",
    "to_arguments",
    "truthy",
    "unless_set",
    "visible_ids",
    "with_image_path",
]

__getattr__ = lazy_face(
    __name__,
    {
        "devices": "Gpus RESTRICTIONS count_gpus visible_ids",
        "hostlist": "natural_key",
        "hostname": "preload_hostname",
        "hyperparameters": (
            "LAUNCH_PREFIX decode_hyperparameters named script_hyperparameters to_arguments truthy"
        ),
        "image_record": "with_image_path",
        "local_disk": "LocalDisk choose_disk small_scratch",
        "ml_dir": "MlDir find_ml_dir read_json",
        "network_env": "network_variables network_warnings read_network_stack",
        "places": "NO_LOCKS check_file_owner make_place path_word",
        "pool": (
            "AttemptPlace NodePool PLACE_VARIABLE first_topology make_pool muster_port read_place "
            "rendezvous_port"
        ),
        "rank_environment": (
            "EnvironmentChange apply_changes network_changes route_changes slurm_changes "
            "stale_variables unless_set"
        ),
        "s3_hosts": "s3_host",
        "sagemaker_env": "sagemaker_variables",
        "topology": "Topology local_topology sagemaker_topology slurm_topology",
    },
)
