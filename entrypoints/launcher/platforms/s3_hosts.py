"""Where S3 is: the name of a region's endpoint."""

from __future__ import annotations

#: Beginnings of the names of regions whose endpoints do not end in amazonaws.com, the longer ones
#: first (botocore: data/partitions.json).
_SUFFIXES = {
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov",
    "us-iso-": "c2s.ic.gov",
    "eu-isoe-": "cloud.adc-e.uk",
}


def s3_host(region: str) -> str:
    """The host of a region's S3, which bucket names stand before or behind."""
    suffix = next((end for start, end in _SUFFIXES.items() if region.startswith(start)), None)
    return f"s3.{region}.{suffix or 'amazonaws.com'}"
