"""What the tasks call: build, verify, export, push, in order.

Host tools, doctor and the test suite are here, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.pipeline.checkout import Checkout
    from slipway.pipeline.doctor import check_machine, raise_for
    from slipway.pipeline.host_tools import set_up_host
    from slipway.pipeline.plan_report import plan_images
    from slipway.pipeline.relock import lock_images
    from slipway.pipeline.settings import Settings, ShipRequest
    from slipway.pipeline.ship import ship_images
    from slipway.pipeline.targets import (
        TargetImage,
        compare_images,
        list_target,
        mirror_bases,
        promote_image,
        prune_target,
        rollback_image_alias,
        show_target_image,
    )
    from slipway.pipeline.test_suite import run_test_suite

__all__ = [
    "Checkout",
    "Settings",
    "ShipRequest",
    "TargetImage",
    "check_machine",
    "compare_images",
    "list_target",
    "lock_images",
    "mirror_bases",
    "plan_images",
    "promote_image",
    "prune_target",
    "raise_for",
    "rollback_image_alias",
    "run_test_suite",
    "set_up_host",
    "ship_images",
    "show_target_image",
]

__getattr__ = lazy_face(
    __name__,
    {
        "targets": (
            "TargetImage compare_images list_target mirror_bases promote_image prune_target "
            "rollback_image_alias show_target_image"
        ),
        "checkout": "Checkout",
        "doctor": "check_machine raise_for",
        "host_tools": "set_up_host",
        "plan_report": "plan_images",
        "relock": "lock_images",
        "settings": "Settings ShipRequest",
        "ship": "ship_images",
        "test_suite": "run_test_suite",
    },
)
