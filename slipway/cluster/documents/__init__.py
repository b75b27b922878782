"""A cluster's file -> every document that the cluster is made of: requests, policies, scripts.

Pure: nothing here asks AWS. Each permission has its reason and its source, and each part of a
request the line of the file that it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway import lazy_face

if TYPE_CHECKING:
    from slipway.cluster.documents.cluster_file import (
        CLUSTER_TAG,
        PART_TAG,
        ClusterFile,
        read_cluster_file,
    )
    from slipway.cluster.documents.cluster_requests import (
        ClusterParts,
        ClusterRequest,
        make_cluster_request,
        make_file_system_request,
        make_role_request,
        security_group_rules,
    )
    from slipway.cluster.documents.document_set import (
        lifecycle_scripts,
        make_cluster_documents,
        role_permissions,
        write_cluster_documents,
    )
    from slipway.cluster.documents.permissions import Permission, policy_text

__all__ = [
    "CLUSTER_TAG",
    "PART_TAG",
    "ClusterFile",
    "ClusterParts",
    "ClusterRequest",
    "Permission",
    "lifecycle_scripts",
    "make_cluster_documents",
    "make_cluster_request",
    "make_file_system_request",
    "make_role_request",
    "policy_text",
    "read_cluster_file",
    "role_permissions",
    "security_group_rules",
    "write_cluster_documents",
]

__getattr__ = lazy_face(
    __name__,
    {
        "cluster_file": "CLUSTER_TAG PART_TAG ClusterFile read_cluster_file",
        "cluster_requests": (
            "ClusterParts ClusterRequest make_cluster_request make_file_system_request "
            "make_role_request security_group_rules"
        ),
        "document_set": (
            "lifecycle_scripts make_cluster_documents role_permissions write_cluster_documents"
        ),
        "permissions": "Permission policy_text",
    },
)
