"""The squashfs 4.0 format: compile layers once, link them into images, read and compare images.

It knows nothing of Docker or enroot: layers come in as folders or tar streams. The format is
documented at https://dr-emann.github.io/squashfs/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.squashfs.compile.compiled_layer import (
        CompiledLayer,
        DataPart,
        dump_layer,
        freeze_tree,
        part_name,
    )
    from slipway.squashfs.compile.compiler import compile_layers
    from slipway.squashfs.compile.layer_cache import DEFAULT_LIMIT, LayerCache, layer_cache
    from slipway.squashfs.compile.layer_sources import (
        ArchiveHeaders,
        DirectorySource,
        Source,
        TarSource,
    )
    from slipway.squashfs.compile.layer_stream import ReadAhead, decompressed_stream
    from slipway.squashfs.compile.layer_tree import FileData, TreeNode, new_root, put_node
    from slipway.squashfs.compile.layer_writer import LayerWriter
    from slipway.squashfs.compile.tar_reader import read_content, skip_content, tar_members
    from slipway.squashfs.format.errors import LayerError
    from slipway.squashfs.format.options import WRITABLE_DEPTH, HotFile, ImageRules, SqshOptions
    from slipway.squashfs.format.structures import DIR, KIND_MODE, REG, SYMLINK
    from slipway.squashfs.link.linker import ImageContents, link_image
    from slipway.squashfs.link.path_lookup import child_names, kind_at, resolve_path
    from slipway.squashfs.read.diff import FileChange, diff_images
    from slipway.squashfs.read.image_reader import (
        ImageCheck,
        SquashfsImage,
        check_image,
        open_image,
    )
    from slipway.squashfs.read.inode_reader import Inode

__all__ = [
    "DEFAULT_LIMIT",
    "DIR",
    "KIND_MODE",
    "REG",
    "SYMLINK",
    "WRITABLE_DEPTH",
    "ArchiveHeaders",
    "CompiledLayer",
    "DataPart",
    "DirectorySource",
    "FileChange",
    "FileData",
    "HotFile",
    "ImageCheck",
    "ImageContents",
    "ImageRules",
    "Inode",
    "LayerCache",
    "LayerError",
    "LayerWriter",
    "ReadAhead",
    "Source",
    "SqshOptions",
    "SquashfsImage",
    "TarSource",
    "TreeNode",
    "check_image",
    "child_names",
    "compile_layers",
    "decompressed_stream",
    "diff_images",
    "dump_layer",
    "freeze_tree",
    "kind_at",
    "layer_cache",
    "link_image",
    "new_root",
    "open_image",
    "part_name",
    "put_node",
    "read_content",
    "resolve_path",
    "skip_content",
    "tar_members",
]

__getattr__ = lazy_face(
    __name__,
    {
        "compile.compiled_layer": "CompiledLayer DataPart dump_layer freeze_tree part_name",
        "compile.compiler": "compile_layers",
        "compile.layer_cache": "DEFAULT_LIMIT LayerCache layer_cache",
        "compile.layer_sources": "ArchiveHeaders DirectorySource Source TarSource",
        "compile.layer_stream": "ReadAhead decompressed_stream",
        "compile.layer_tree": "FileData TreeNode new_root put_node",
        "compile.layer_writer": "LayerWriter",
        "compile.tar_reader": "read_content skip_content tar_members",
        "format.errors": "LayerError",
        "format.options": "HotFile ImageRules SqshOptions WRITABLE_DEPTH",
        "format.structures": "DIR KIND_MODE REG SYMLINK",
        "link.linker": "ImageContents link_image",
        "link.path_lookup": "child_names kind_at resolve_path",
        "read.diff": "FileChange diff_images",
        "read.image_reader": "ImageCheck SquashfsImage check_image open_image",
        "read.inode_reader": "Inode",
    },
)
