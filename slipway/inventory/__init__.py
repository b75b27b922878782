"""What is in an image, by name and version, and what differs between two.

In come images where they lie, in a registry or an OCI layout, and what is recorded of bases; out
come inventories, their differences and bills of materials. It reads layers as they stream by,
unpacks nothing and runs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.inventory.advisories import Advisory, read_advisories
    from slipway.inventory.bill_of_materials import (
        SPDX_TYPE,
        BilledImage,
        read_bill,
        write_bill,
    )
    from slipway.inventory.differences import ImageDifference, compare_inventories
    from slipway.inventory.image_inventory import (
        read_inventory,
        read_package_database,
        run_settings,
    )
    from slipway.inventory.layered_image import (
        BlobReader,
        LayeredImage,
        open_layered_image,
        stored_layered_image,
    )
    from slipway.inventory.metadata_files import (
        FOLDER,
        LINK,
        LayerNotes,
        MetadataFiles,
        describes,
        read_metadata_files,
    )
    from slipway.inventory.python_distributions import (
        PythonDistribution,
        check_environment,
        distributions_in,
    )

__all__ = [
    "FOLDER",
    "LINK",
    "SPDX_TYPE",
    "Advisory",
    "BilledImage",
    "BlobReader",
    "ImageDifference",
    "LayerNotes",
    "LayeredImage",
    "MetadataFiles",
    "PythonDistribution",
    "check_environment",
    "compare_inventories",
    "describes",
    "distributions_in",
    "open_layered_image",
    "read_advisories",
    "read_bill",
    "read_inventory",
    "read_metadata_files",
    "read_package_database",
    "run_settings",
    "stored_layered_image",
    "write_bill",
]

__getattr__ = lazy_face(
    __name__,
    {
        "advisories": "Advisory read_advisories",
        "bill_of_materials": "BilledImage SPDX_TYPE read_bill write_bill",
        "differences": "ImageDifference compare_inventories",
        "image_inventory": "read_inventory read_package_database run_settings",
        "layered_image": "BlobReader LayeredImage open_layered_image stored_layered_image",
        "metadata_files": "FOLDER LayerNotes LINK MetadataFiles describes read_metadata_files",
        "python_distributions": "PythonDistribution check_environment distributions_in",
    },
)
