"""Docker installations of a machine: daemons, services, configuration files, what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.storage.docker.config_files import (
        DEFAULT_ROOT,
        configured_root,
        conflicting_flags,
        parse_daemon_json,
        read_daemon_json,
        with_containerd_root,
        with_data_root,
    )
    from slipway.storage.docker.containerd import current_root
    from slipway.storage.docker.data_folder import DOCKERS_NAMESPACES, DataFolders, repoint
    from slipway.storage.docker.embedded_service import EmbeddedService, own_data_path
    from slipway.storage.docker.installation import (
        DockerInstallation,
        Service,
        choose_daemon,
        engine_of_installation,
        find_installation,
        installation_key,
    )
    from slipway.storage.docker.inventory import (
        IN_FILES,
        DockerInventory,
        daemon_at_rest,
        lost_objects,
        objects_since,
        take_inventory,
    )
    from slipway.storage.docker.systemd import CONTAINERD, DOCKER, drop_in

__all__ = [
    "CONTAINERD",
    "DEFAULT_ROOT",
    "DOCKER",
    "DOCKERS_NAMESPACES",
    "IN_FILES",
    "DataFolders",
    "DockerInstallation",
    "DockerInventory",
    "EmbeddedService",
    "Service",
    "choose_daemon",
    "configured_root",
    "conflicting_flags",
    "current_root",
    "daemon_at_rest",
    "drop_in",
    "engine_of_installation",
    "find_installation",
    "installation_key",
    "lost_objects",
    "objects_since",
    "own_data_path",
    "parse_daemon_json",
    "read_daemon_json",
    "repoint",
    "take_inventory",
    "with_containerd_root",
    "with_data_root",
]

__getattr__ = lazy_face(
    __name__,
    {
        "config_files": (
            "DEFAULT_ROOT configured_root conflicting_flags parse_daemon_json read_daemon_json "
            "with_containerd_root with_data_root"
        ),
        "containerd": "current_root",
        "data_folder": "DOCKERS_NAMESPACES DataFolders repoint",
        "embedded_service": "EmbeddedService own_data_path",
        "installation": (
            "DockerInstallation Service choose_daemon engine_of_installation find_installation "
            "installation_key"
        ),
        "inventory": (
            "DockerInventory IN_FILES daemon_at_rest lost_objects objects_since take_inventory"
        ),
        "systemd": "CONTAINERD DOCKER drop_in",
    },
)
