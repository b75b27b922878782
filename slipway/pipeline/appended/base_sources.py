"""Where the bases of a run are, opened once each, and held to what the locks say of them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from slipway.core import CredentialsFor, SlipwayError, UsageError
from slipway.inventory import LayeredImage, open_layered_image
from slipway.matrix import Base, Image, image_uri
from slipway.pipeline.checkout import Checkout
from slipway.pipeline.targets import shared_base_place
from slipway.registry import RegistryClient

if TYPE_CHECKING:
    from slipway.registry import Target

RECIPE_LABEL = "io.slipway.local-base"


def check_one_base(images: Sequence[Image], base_from: str) -> None:
    """Raises UsageError where `--base-from` is to be the base of several."""
    if base_from and len({image.base.root.name for image in images}) > 1:
        raise UsageError(
            "--base-from is one base, and the images stand on several",
            cure="Name images of one base.",
        )


class BaseSources:
    """The bases of one run. `base_from` names where they are in place of their own registry.

    A base that has a recorded digest is taken by it; one that Slipway makes is known by the recipe
    that it is labelled with, and is looked for in the `target`, which keeps it.
    """

    def __init__(
        self,
        checkout: Checkout,
        region: str | None,
        base_from: str,
        credentials: CredentialsFor,
        target: Target | None = None,
    ) -> None:
        self._checkout, self._region, self._from = checkout, region, base_from
        self._credentials, self._target = credentials, target
        self._open: dict[str, LayeredImage] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> BaseSources:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def base(self, base: Base, recipe: str) -> LayeredImage:
        """The base; `recipe` is what the build id counts of it. Raises SlipwayError."""
        if base.name not in self._open:
            image = self._stack.enter_context(
                open_layered_image(
                    self._uri(base, recipe), self._credentials, base.facts.architecture
                )
            )
            self._check(base, recipe, image)
            self._open[base.name] = image
        return self._open[base.name]

    def _digest(self, base: Base) -> str | None:
        lock = self._checkout.locks.bases.get(base.name)
        return lock.digest if lock else None

    def _uri(self, base: Base, recipe: str) -> str:
        digest = self._digest(base)
        if self._from:
            stated = self._from.startswith("oci:") or "@" in self._from or digest is None
            return self._from if stated else f"{self._from}@{digest}"
        if base.registry is None:
            path, tag = shared_base_place(self._checkout.matrix, base, recipe)
            if self._target is None or not self._is_kept(self._target, path, tag):
                raise UsageError(
                    f"{base.name} is made by Slipway with an engine, and "
                    + (
                        f"{self._target.host} does not keep it"
                        if self._target
                        else "no target is asked"
                    ),
                    cure="Push an image on it once with an engine: the target keeps it then. Or "
                    "say where one is: --base-from registry://HOST/REPOSITORY:TAG, or oci:FOLDER.",
                )
            return f"{self._target.host}/{path}:{tag}"
        return image_uri(base.registry, self._region, base.repository, base.tag, digest).reference

    def _is_kept(self, target: Target, path: str, tag: str) -> bool:
        with RegistryClient(target.host, self._credentials) as client:
            return client.head(path, tag) is not None

    def _check(self, base: Base, recipe: str, image: LayeredImage) -> None:
        actual, stated = image.config.get("architecture"), base.facts.architecture
        if actual != stated:
            raise SlipwayError(
                f"this is an image for {actual or 'no architecture that it names'}, and the facts "
                f"of {base.name} say {stated}",
                where=image.where,
                cure="Correct `architecture` or the tag in versions.yaml.",
            )
        digest = self._digest(base)
        if base.registry is None:
            labels = (image.config.get("config") or {}).get("Labels") or {}
            if labels.get(RECIPE_LABEL) != recipe:
                raise SlipwayError(
                    f"this is not the {base.name} that the checkout describes",
                    where=image.where,
                    cure="Build the image with an engine once, and push its base anew.",
                )
        elif digest and self._from.startswith("oci:") and image.manifest.digest != digest:
            raise SlipwayError(
                f"this is {image.manifest.digest}, and {base.name} is locked to {digest}",
                where=self._from,
                cure="Copy the locked base into the folder, or run `./inv lock`.",
            )
        elif digest and not re.search(rf"@{digest}$", self._uri(base, recipe)):
            raise SlipwayError(
                f"{self._from} names another digest than {base.name} is locked to ({digest})",
                cure="Leave the digest out.",
            )
