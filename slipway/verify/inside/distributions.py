"""Prints, as JSON, the distributions that this Python sees, and its PEP 508 marker values."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys

version = sys.implementation.version
implementation = f"{version.major}.{version.minor}.{version.micro}"
if version.releaselevel != "final":
    implementation += f"{version.releaselevel[0]}{version.serial}"

found = [
    {
        "name": distribution.metadata["Name"],
        "version": distribution.version,
        "requires": distribution.requires or [],
    }
    for distribution in importlib.metadata.distributions()
    if distribution.metadata["Name"]
]
environment = {
    "implementation_name": sys.implementation.name,
    "implementation_version": implementation,
    "os_name": os.name,
    "platform_machine": platform.machine(),
    "platform_python_implementation": platform.python_implementation(),
    "platform_release": platform.release(),
    "platform_system": platform.system(),
    "platform_version": platform.version(),
    "python_full_version": platform.python_version(),
    "python_version": f"{sys.version_info[0]}.{sys.version_info[1]}",
    "sys_platform": sys.platform,
}
json.dump({"environment": environment, "found": found}, sys.stdout)
