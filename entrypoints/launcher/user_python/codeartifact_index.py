"""Print the URL of a package index of AWS CodeArtifact, with a token in it, for pip.

Runs in the user's Python, for its boto3. Imports nothing of the launcher. The last line of stderr
says what went wrong.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main(region: str, owner: str, domain: str, repository: str) -> None:
    """Ask for a token of the domain, and for where the repository answers pip."""
    boto3: Any = importlib.import_module("boto3")
    client = boto3.client("codeartifact", region_name=region)
    domain_of = {"domain": domain, "domainOwner": owner}
    token = client.get_authorization_token(**domain_of)["authorizationToken"]
    answer = client.get_repository_endpoint(**domain_of, repository=repository, format="pypi")
    scheme, _, rest = answer["repositoryEndpoint"].rstrip("/").partition("://")
    print(f"{scheme}://aws:{token}@{rest}/simple/")


if __name__ == "__main__":
    main(*sys.argv[1:5])
