"""What tools have recorded: the pins under images/lock, and the builds of this machine.

In come files, out come dataclasses, and back. It never decides what is done with them, and asks
nothing of anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.records.build_recipe import BUILD_ENVIRONMENT, build_recipe_key, build_script
    from slipway.records.builds import (
        BuildRecord,
        ExportRecord,
        ImageRecord,
        PushRecord,
        VerifyRecord,
        load_record,
        read_record,
        save_record,
    )
    from slipway.records.image_layers import (
        ImageLayers,
        RecordedLayer,
        load_image_layers,
        save_image_layers,
    )
    from slipway.records.inventories import (
        ImageInventory,
        PackageDatabase,
        SystemPackage,
        inventory_path,
        inventory_text,
        load_inventory,
        write_inventory,
    )
    from slipway.records.lock_files import (
        base_lock_path,
        load_locks,
        python_lock_path,
        python_lock_text,
        start_lock_path,
        system_lock_path,
        tool_lock_path,
        write_base_lock,
        write_python_lock,
        write_system_lock,
        write_tool_lock,
    )
    from slipway.records.lock_keys import (
        BUILD,
        SdistBuild,
        base_lock_key,
        build_requirements,
        python_lock_keys,
        system_lock_keys,
    )
    from slipway.records.locks import (
        BaseLock,
        Locks,
        PackageFile,
        Pin,
        PythonLock,
        SystemLock,
        ToolFile,
        ToolLock,
        describe_lock_changes,
    )
    from slipway.records.run_logs import RecordedRun, RunLog, RunStep, read_run_log
    from slipway.records.wheel_tags import GLIBC, MACHINES, pins_of, platform_tags, wheel_fits

__all__ = [
    "BUILD",
    "BUILD_ENVIRONMENT",
    "GLIBC",
    "MACHINES",
    "BaseLock",
    "BuildRecord",
    "ExportRecord",
    "ImageInventory",
    "ImageLayers",
    "ImageRecord",
    "Locks",
    "PackageDatabase",
    "PackageFile",
    "Pin",
    "PushRecord",
    "PythonLock",
    "RecordedLayer",
    "RecordedRun",
    "RunLog",
    "RunStep",
    "SdistBuild",
    "SystemLock",
    "SystemPackage",
    "ToolFile",
    "ToolLock",
    "VerifyRecord",
    "base_lock_key",
    "base_lock_path",
    "build_recipe_key",
    "build_requirements",
    "build_script",
    "describe_lock_changes",
    "inventory_path",
    "inventory_text",
    "load_image_layers",
    "load_inventory",
    "load_locks",
    "load_record",
    "pins_of",
    "platform_tags",
    "python_lock_keys",
    "python_lock_path",
    "python_lock_text",
    "read_record",
    "read_run_log",
    "save_image_layers",
    "save_record",
    "start_lock_path",
    "system_lock_keys",
    "system_lock_path",
    "tool_lock_path",
    "wheel_fits",
    "write_base_lock",
    "write_inventory",
    "write_python_lock",
    "write_system_lock",
    "write_tool_lock",
]

__getattr__ = lazy_face(
    __name__,
    {
        "build_recipe": "BUILD_ENVIRONMENT build_recipe_key build_script",
        "builds": (
            "BuildRecord ExportRecord ImageRecord PushRecord VerifyRecord load_record read_record "
            "save_record"
        ),
        "inventories": (
            "ImageInventory PackageDatabase SystemPackage inventory_path inventory_text "
            "load_inventory write_inventory"
        ),
        "image_layers": "ImageLayers RecordedLayer load_image_layers save_image_layers",
        "lock_files": (
            "base_lock_path load_locks python_lock_path python_lock_text start_lock_path "
            "system_lock_path tool_lock_path write_base_lock write_python_lock write_system_lock "
            "write_tool_lock"
        ),
        "lock_keys": (
            "BUILD SdistBuild base_lock_key build_requirements python_lock_keys system_lock_keys"
        ),
        "locks": (
            "BaseLock Locks PackageFile Pin PythonLock SystemLock ToolFile ToolLock "
            "describe_lock_changes"
        ),
        "run_logs": "RecordedRun RunLog RunStep read_run_log",
        "wheel_tags": "GLIBC MACHINES pins_of platform_tags wheel_fits",
    },
)
