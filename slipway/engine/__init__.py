"""The Docker engine in use, by its API: connect, inspect, run, pull, push, import.

No docker or buildx binary is needed. It never knows the matrix: references and requests come in.
Errors of the SDK leave as EngineError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.engine.architectures import (
        TRIAL_EXIT_CODE,
        TRIAL_PATH,
        run_trial_image,
        runs_architecture,
        trial_program,
    )
    from slipway.engine.bolt_file import BoltFile, BoltFileError, bolt_checksum
    from slipway.engine.buildkit.build import BuildAttempt, BuildRequest, build_image
    from slipway.engine.buildkit.build_context import ContextFile
    from slipway.engine.client import (
        Engine,
        EngineKind,
        connect,
        engine_info,
        engine_kind,
        starts_embedded,
    )
    from slipway.engine.containers import (
        BARE,
        OWNER_LABEL,
        ContainerOptions,
        remove_container,
        remove_stale_containers,
        run_once,
    )
    from slipway.engine.content_store import (
        ContentImage,
        containerd_roots,
        content_folder,
        find_content_image,
    )
    from slipway.engine.docker_settings import (
        DockerEndpoint,
        docker_endpoint,
        docker_folder,
        read_docker_json,
    )
    from slipway.engine.embedded.daemon import daemon_status, start_daemon, stop_daemon
    from slipway.engine.endpoint import DEFAULT_URL, ping
    from slipway.engine.errors import (
        DamagedLayerError,
        EngineError,
        EngineUnavailableError,
        TransferError,
    )
    from slipway.engine.image_loading import ImageArchive, load_on_base
    from slipway.engine.images import find_image_id, image_history, inspect_image
    from slipway.engine.layer_tars import LayerTar, LayerTars, find_layer_tars
    from slipway.engine.sdk_boundary import engine_died, sdk_answer, sdk_errors
    from slipway.engine.transfer import import_rootfs, pull_image, push_image_layers

__all__ = [
    "BARE",
    "DEFAULT_URL",
    "OWNER_LABEL",
    "TRIAL_EXIT_CODE",
    "TRIAL_PATH",
    "BoltFile",
    "BoltFileError",
    "BuildAttempt",
    "BuildRequest",
    "ContainerOptions",
    "ContentImage",
    "ContextFile",
    "DamagedLayerError",
    "DockerEndpoint",
    "Engine",
    "EngineError",
    "EngineKind",
    "EngineUnavailableError",
    "ImageArchive",
    "LayerTar",
    "LayerTars",
    "TransferError",
    "bolt_checksum",
    "build_image",
    "connect",
    "containerd_roots",
    "content_folder",
    "daemon_status",
    "docker_endpoint",
    "docker_folder",
    "engine_died",
    "engine_info",
    "engine_kind",
    "find_content_image",
    "find_image_id",
    "find_layer_tars",
    "image_history",
    "import_rootfs",
    "inspect_image",
    "load_on_base",
    "ping",
    "pull_image",
    "push_image_layers",
    "read_docker_json",
    "remove_container",
    "remove_stale_containers",
    "run_once",
    "run_trial_image",
    "runs_architecture",
    "sdk_answer",
    "sdk_errors",
    "start_daemon",
    "starts_embedded",
    "stop_daemon",
    "trial_program",
]

__getattr__ = lazy_face(
    __name__,
    {
        "bolt_file": "BoltFile BoltFileError bolt_checksum",
        "architectures": "TRIAL_EXIT_CODE TRIAL_PATH run_trial_image runs_architecture "
        "trial_program",
        "buildkit.build": "BuildAttempt BuildRequest build_image",
        "buildkit.build_context": "ContextFile",
        "client": "Engine EngineKind connect engine_info engine_kind starts_embedded",
        "containers": "BARE OWNER_LABEL ContainerOptions remove_container remove_stale_containers "
        "run_once",
        "content_store": "ContentImage containerd_roots content_folder find_content_image",
        "docker_settings": "DockerEndpoint docker_endpoint docker_folder read_docker_json",
        "embedded.daemon": "daemon_status start_daemon stop_daemon",
        "endpoint": "DEFAULT_URL ping",
        "errors": "DamagedLayerError EngineError EngineUnavailableError TransferError",
        "image_loading": "ImageArchive load_on_base",
        "images": "find_image_id image_history inspect_image tag_image",
        "layer_tars": "LayerTar LayerTars find_layer_tars",
        "sdk_boundary": "engine_died sdk_answer sdk_errors",
        "transfer": "import_rootfs pull_image push_image_layers",
    },
)
