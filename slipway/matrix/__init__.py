"""versions.yaml -> the list of images, and what is derived from a row: tags, URIs, facts.

In comes text, out come frozen dataclasses, or every error of the file with its line. Pure: no
Docker, no AWS, no network, no date.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.matrix.addons import archives_of
    from slipway.matrix.cell_explanation import explain_image
    from slipway.matrix.image_tags import image_tag, repository_name, tag_stem
    from slipway.matrix.json_schema import SCHEMA_FILE, versions_schema
    from slipway.matrix.load import load_matrix
    from slipway.matrix.matrix_cache import read_matrix
    from slipway.matrix.model import (
        AddedFiles,
        Addon,
        Architecture,
        Archive,
        AxisValue,
        Base,
        Facts,
        Image,
        LeftOut,
        Matrix,
        Reference,
        Registry,
        SourceBuild,
        SourceInput,
        SystemPackages,
        Tool,
        WaitingBase,
        image_depth,
        images_below,
        past_support,
        select_images,
    )
    from slipway.matrix.references import (
        IMAGE_REGISTRY,
        LOCAL_REGISTRY,
        ecr_host,
        image_uri,
        is_public,
        region_partition,
        region_suffixes,
    )
    from slipway.matrix.upstream import (
        TRAINING_TABLES,
        CurrencyFinding,
        compare_with_tables,
        edit_versions,
        entry_block,
        is_left_out,
        published_images,
    )
    from slipway.matrix.yaml_file import Problem, YamlFile, read_yaml

__all__ = [
    "IMAGE_REGISTRY",
    "LOCAL_REGISTRY",
    "SCHEMA_FILE",
    "TRAINING_TABLES",
    "AddedFiles",
    "Addon",
    "Architecture",
    "Archive",
    "AxisValue",
    "Base",
    "CurrencyFinding",
    "Facts",
    "Image",
    "LeftOut",
    "Matrix",
    "Problem",
    "Reference",
    "Registry",
    "SourceBuild",
    "SourceInput",
    "SystemPackages",
    "Tool",
    "WaitingBase",
    "YamlFile",
    "archives_of",
    "compare_with_tables",
    "ecr_host",
    "edit_versions",
    "entry_block",
    "explain_image",
    "image_depth",
    "image_tag",
    "image_uri",
    "images_below",
    "is_left_out",
    "is_public",
    "load_matrix",
    "past_support",
    "published_images",
    "read_matrix",
    "read_yaml",
    "region_partition",
    "region_suffixes",
    "repository_name",
    "select_images",
    "tag_stem",
    "versions_schema",
]

__getattr__ = lazy_face(
    __name__,
    {
        "addons": "archives_of",
        "cell_explanation": "explain_image",
        "image_tags": "image_tag repository_name tag_stem",
        "json_schema": "SCHEMA_FILE versions_schema",
        "load": "load_matrix",
        "matrix_cache": "read_matrix",
        "model": (
            "AddedFiles Addon Architecture Archive AxisValue Base Facts Image LeftOut Matrix "
            "Reference Registry SourceBuild SourceInput SystemPackages Tool WaitingBase "
            "image_depth images_below past_support select_images"
        ),
        "references": (
            "IMAGE_REGISTRY LOCAL_REGISTRY ecr_host image_uri is_public region_partition "
            "region_suffixes"
        ),
        "upstream": (
            "TRAINING_TABLES CurrencyFinding compare_with_tables edit_versions entry_block "
            "is_left_out published_images"
        ),
        "yaml_file": "Problem YamlFile read_yaml",
    },
)
