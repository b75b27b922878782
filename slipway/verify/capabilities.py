"""Image -> the checks that it must pass, each with the fact that asks for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from slipway.matrix import Image


@dataclass(frozen=True)
class Capability:
    """Something that an image claims. Its checks are in tests/image/<folder>."""

    name: str
    because: str
    own_checks: bool = True  # False: what any add-on claims is checked with every image

    @property
    def folder(self) -> str:
        """The folder of its checks: a name that Python could import."""
        return self.name.replace("-", "_")


def capabilities_of(image: Image) -> tuple[Capability, ...]:
    """What an image claims, and why: all images, its platform, its device, its contents."""
    facts = image.base.facts
    capabilities = [
        Capability("common", "every image"),
        Capability(image.platform, f"platform: {image.platform}"),
    ]
    if image.torch or facts.device == "gpu":
        capabilities.append(Capability(facts.device, f"the base is for {facts.device}"))
    if image.torch:
        capabilities.append(Capability("torch", f"torch {image.torch}"))
        if facts.device == "gpu":
            capabilities.append(Capability("torch-gpu", f"torch {image.torch} for gpu"))
    for addon in image.addons:
        version = addon.version or ("(version of the base)" if addon.action == "keep" else "")
        because = f"add-on {' '.join(filter(None, (addon.name, version)))}: {addon.action}"
        capabilities.append(Capability(addon.name, because, own_checks=False))
        if facts.device == "gpu" and image.base.family.cuda_home:
            because = f"{addon.name} with the toolkit in {image.base.family.cuda_home}"
            capabilities.append(Capability(f"{addon.name}-gpu", because, own_checks=False))
        if addon.mismatch_env:
            because = f"CUDA toolkit {facts.cuda} is not torch's {facts.torch_cuda}"
            name = f"{addon.name}-cuda-mismatch"
            capabilities.append(Capability(name, because, own_checks=False))
    if facts.transformers:
        capabilities.append(Capability("transformers", f"facts: transformers {facts.transformers}"))
    if facts.smp:
        capabilities.append(Capability("smp", f"facts: SageMaker Model Parallel {facts.smp}"))
    return tuple(capabilities)
