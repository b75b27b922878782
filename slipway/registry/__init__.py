"""Registries, local and ECR: where they are, logins, and the push of an image under its tag.

In come references and an engine's image, out come digests that were read back. Errors of requests
and boto3 leave as RegistryError with a cure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.registry.block_inflater import GZIP, RAW, BlockInflater, DeflateError
    from slipway.registry.distribution.blob_transfer import (
        BlobDelivery,
        BlobTransfer,
        FileBlob,
        MemoryBlob,
        RegistryBlob,
        Repository,
        deliver_blobs,
    )
    from slipway.registry.distribution.image_copy import CopyResult, copy_image
    from slipway.registry.distribution.referrers import (
        Artefact,
        ArtefactFile,
        StoredArtefact,
        list_artefacts,
        put_artefacts,
        put_referrer,
        read_artefact_file,
    )
    from slipway.registry.distribution.registry_client import RegistryClient, find_manifest
    from slipway.registry.distribution.retry import RetryPolicy
    from slipway.registry.distribution.tag_digests import tag_digests
    from slipway.registry.ecr import (
        aws_errors,
        caller_account,
        connect_aws,
        find_aws_credentials,
        pull_statements,
        tolerate,
    )
    from slipway.registry.ecr_target import (
        check_alias_can_move,
        find_ecr_target,
        prepare_repository,
        remove_images,
    )
    from slipway.registry.errors import (
        ENTRY_FAULTS,
        ImageMissingError,
        ImmutableTagError,
        ManifestError,
        NoCredentialsError,
        NotAuthorisedError,
        RegistryError,
        RegistryUnavailableError,
        RepositoryMissingError,
        ThrottledError,
        WrongAccountError,
    )
    from slipway.registry.layer_gzip import (
        DeflatedPiece,
        PackedTar,
        gzip_stream,
        write_gzip,
    )
    from slipway.registry.local import (
        docker_login_words,
        local_registry_status,
        start_local_registry,
        stop_local_registry,
    )
    from slipway.registry.logins import credentials_for
    from slipway.registry.manifests import (
        OCI_INDEX,
        OCI_MANIFEST,
        Manifest,
        check_manifest,
        choose_manifest,
        digest_of,
        is_digest,
        media_type_of,
        parse_config,
        parse_json,
        referrers_tag,
        schema2_manifest,
        to_schema2,
    )
    from slipway.registry.packed_image import ImagePacker, packed_layers
    from slipway.registry.promotion import (
        AliasChange,
        AliasMove,
        Author,
        alias_journal,
        alias_patterns,
        plan_promotion,
        promote_alias,
        promoted_digests,
        rollback_alias,
    )
    from slipway.registry.push import push_image
    from slipway.registry.target import Target

__all__ = [
    "ENTRY_FAULTS",
    "GZIP",
    "OCI_INDEX",
    "OCI_MANIFEST",
    "RAW",
    "AliasChange",
    "AliasMove",
    "Artefact",
    "ArtefactFile",
    "Author",
    "BlobDelivery",
    "BlobTransfer",
    "BlockInflater",
    "CopyResult",
    "DeflateError",
    "DeflatedPiece",
    "FileBlob",
    "ImageMissingError",
    "ImagePacker",
    "ImmutableTagError",
    "Manifest",
    "ManifestError",
    "MemoryBlob",
    "NoCredentialsError",
    "NotAuthorisedError",
    "PackedTar",
    "RegistryBlob",
    "RegistryClient",
    "RegistryError",
    "RegistryUnavailableError",
    "Repository",
    "RepositoryMissingError",
    "RetryPolicy",
    "StoredArtefact",
    "Target",
    "ThrottledError",
    "WrongAccountError",
    "alias_journal",
    "alias_patterns",
    "aws_errors",
    "caller_account",
    "check_alias_can_move",
    "check_manifest",
    "choose_manifest",
    "connect_aws",
    "copy_image",
    "credentials_for",
    "deliver_blobs",
    "digest_of",
    "docker_login_words",
    "find_aws_credentials",
    "find_ecr_target",
    "find_manifest",
    "gzip_stream",
    "is_digest",
    "list_artefacts",
    "local_registry_status",
    "media_type_of",
    "packed_layers",
    "parse_config",
    "parse_json",
    "plan_promotion",
    "prepare_repository",
    "promote_alias",
    "promoted_digests",
    "pull_statements",
    "push_image",
    "put_artefacts",
    "put_referrer",
    "read_artefact_file",
    "referrers_tag",
    "remove_images",
    "rollback_alias",
    "schema2_manifest",
    "start_local_registry",
    "stop_local_registry",
    "tag_digests",
    "to_schema2",
    "tolerate",
    "write_gzip",
]

__getattr__ = lazy_face(
    __name__,
    {
        "distribution.blob_transfer": (
            "BlobDelivery BlobTransfer FileBlob MemoryBlob RegistryBlob Repository deliver_blobs"
        ),
        "distribution.image_copy": "CopyResult copy_image",
        "distribution.referrers": (
            "Artefact ArtefactFile StoredArtefact list_artefacts put_artefacts put_referrer "
            "read_artefact_file"
        ),
        "distribution.registry_client": "RegistryClient find_manifest",
        "distribution.retry": "RetryPolicy",
        "distribution.tag_digests": "tag_digests",
        "ecr": (
            "aws_errors caller_account connect_aws find_aws_credentials pull_statements tolerate"
        ),
        "ecr_target": "check_alias_can_move find_ecr_target prepare_repository remove_images",
        "errors": (
            "ENTRY_FAULTS ImageMissingError ImmutableTagError ManifestError NoCredentialsError "
            "NotAuthorisedError RegistryError RegistryUnavailableError RepositoryMissingError "
            "ThrottledError WrongAccountError"
        ),
        "block_inflater": "GZIP RAW BlockInflater DeflateError",
        "layer_gzip": "DeflatedPiece PackedTar gzip_stream write_gzip",
        "local": (
            "docker_login_words local_registry_status start_local_registry stop_local_registry"
        ),
        "logins": "credentials_for",
        "manifests": (
            "Manifest OCI_INDEX OCI_MANIFEST check_manifest choose_manifest digest_of "
            "is_digest media_type_of parse_config parse_json referrers_tag schema2_manifest "
            "to_schema2"
        ),
        "packed_image": "ImagePacker packed_layers",
        "promotion": (
            "AliasChange AliasMove Author alias_journal alias_patterns plan_promotion "
            "promote_alias promoted_digests rollback_alias"
        ),
        "push": "push_image",
        "target": "Target",
    },
)
