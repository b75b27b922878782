"""A Dockerfile of ours and its context, followed without an engine."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import ModuleType

from packaging.utils import canonicalize_name, parse_wheel_filename

from slipway.append.appended_image import (
    AppendedImage,
    ImageConfiguration,
    copied_files,
    folders_above,
    layer_plan,
)
from slipway.append.base_contents import BaseContents, read_base_contents
from slipway.append.build_steps import (
    DockerfileStep,
    InstallStep,
    NeedsEngineError,
    install_step,
    read_steps,
)
from slipway.append.grains import MOST_LAYERS, wheel_grains
from slipway.append.installation import (
    AddonWheels,
    PythonState,
    chosen_wheels,
    load_installer,
    marker_environment,
)
from slipway.append.layer_blobs import LayerBlob, LayerStore
from slipway.append.layer_files import LayerPlan
from slipway.append.python_layout import PythonLayout
from slipway.append.ran_layers import (
    check_no_packages,
    folders_and_links,
    read_ran_layers,
)
from slipway.append.wheel_files import InstalledWheel
from slipway.append.wheel_layouts import WheelLayouts
from slipway.core import Event, OnEvent, SharedParts, SlipwayError, silent
from slipway.engine import ContextFile
from slipway.inventory import LayeredImage, LayerNotes, MetadataFiles


@dataclass(frozen=True)
class AppendRequest:
    """What one image is made of, and where what was made before is kept (`cache`, `shared`).

    `packages`: the Python distributions of the base where the lock tells them, else None.
    `ran`: by section, the layers of steps that run something in the base. `on_layer` hears each
    new layer as soon as it is made, from any thread.
    """

    dockerfile: str
    context: tuple[ContextFile, ...]
    labels: Mapping[str, str]
    python: str  # "3.12"
    cache: Path
    packages: Mapping[str, str] | None = None
    machine: str = "x86_64"
    shared: SharedParts | None = None
    ran: Mapping[str, LayerBlob] = field(default_factory=dict)
    on_layer: Callable[[LayerBlob], None] = lambda _: None


@dataclass
class _Installation:
    """An add-on's RUN step with what came of it."""

    step: DockerfileStep
    install: InstallStep
    wheels: list[InstalledWheel] = field(default_factory=list)
    gone: tuple[str, ...] = ()


def append_image(
    base: LayeredImage, request: AppendRequest, task: str, on_event: OnEvent = silent
) -> AppendedImage:
    """Make what the Dockerfile adds to `base`. Layers that were made before are not made again.

    Raises NeedsEngineError for a step that has to run in the base, SlipwayError where something
    does not fit it.
    """
    return _Build(base, request, task, on_event).image()


class _Build:
    """One image on its way."""

    def __init__(
        self, base: LayeredImage, request: AppendRequest, task: str, on_event: OnEvent
    ) -> None:
        self.base, self.request, self.task, self.on_event = base, request, task, on_event
        self.steps = read_steps(request.dockerfile)
        self.store = LayerStore(request.cache / "layers", request.shared)
        self.contents: BaseContents | None = None
        self.kinds: dict[str, str] = {}  # of the base's paths, as far as they are known
        self.folders: set[str] = set()

    def image(self) -> AppendedImage:
        """All steps, in order."""
        ran = {id(step): self._ran(step) for step in self.steps if step.runs_in_base}
        installations = {
            id(step): _Installation(step, install_step(step))
            for step in self.steps
            if step.name == "RUN" and id(step) not in ran
        }
        brought = read_ran_layers([*ran.values()], self._notes, self.on_event)
        self._install([*installations.values()], brought)
        plans = self._plans(installations, ran)
        if len(self.base.layers) + len(ran) + sum(map(len, plans.values())) > MOST_LAYERS:
            raise NeedsEngineError(
                f"the base has {len(self.base.layers)} layers, and an image at most {MOST_LAYERS}",
                cure="Build this image with an engine (without --no-engine).",
            )
        self._configuration({})  # a step that is not known is refused before anything is made
        listed = [(key, plan) for key, plans_of in plans.items() for plan in plans_of]
        blobs = self.store.layers([plan for _, plan in listed], self._have)
        layers: dict[int, list[LayerBlob]] = {key: [layer] for key, layer in ran.items()}
        for (key, _), blob in zip(listed, blobs, strict=True):
            layers.setdefault(key, []).append(blob)
        configuration = self._configuration(layers)
        configuration.label(self.request.labels)
        folders = tuple(sorted(folders_above(f.path for _, plan in listed for f in plan.files)))
        ordered = [layer for step in self.steps for layer in layers.get(id(step), ())]
        return AppendedImage(self.base, tuple(ordered), configuration.document(), folders)

    def _have(self, layer: LayerBlob) -> None:
        self.on_event(Event("progress", self.task, step=layer.title))
        self.request.on_layer(layer)

    def _configuration(self, layers: Mapping[int, Sequence[LayerBlob]]) -> ImageConfiguration:
        """What the steps make of the base's, those layers on top. Raises NeedsEngineError."""
        configuration = ImageConfiguration(self.base)
        for step in self.steps:
            if step.name not in ("RUN", "COPY"):
                configuration.apply(step)
            for layer in layers.get(id(step), ()):
                configuration.add_layer(layer, step.words)
        return configuration

    @property
    def _notes(self) -> LayerNotes:
        return LayerNotes(self.request.cache, self.request.shared)

    def _ran(self, step: DockerfileStep) -> LayerBlob:
        """The layer of a step that runs something in the base. Raises NeedsEngineError."""
        if step.section not in self.request.ran:
            raise NeedsEngineError(
                f"{step.section} runs a command in the base: {step.text[:100]}",
                cure="Build this image with an engine (without --no-engine).",
            )
        return self.request.ran[step.section]

    def _install(self, installations: Sequence[_Installation], brought: MetadataFiles) -> None:
        if not installations:
            return
        interpreters = {prepared.install.interpreter for prepared in installations}
        if len(interpreters) != 1:
            raise NeedsEngineError(f"add-ons are installed by {', '.join(sorted(interpreters))}")
        layout = PythonLayout(interpreters.pop(), self.request.python)
        check_no_packages(brought, layout)
        self.folders = {
            str(folder)[1:]
            for path in layout.scheme("any").values()
            for folder in (path, *path.parents)
            if "include" not in folder.parts and folder != PurePosixPath("/")
        }
        addons = [self._addon(prepared.install) for prepared in installations]
        known = {str(canonicalize_name(n)): v for n, v in (self.request.packages or {}).items()}
        if self.request.packages is None or self._replaces(installations, addons, known):
            self.contents = read_base_contents(self.base, layout, self._notes, self.on_event)
            self._compare(known)
            known = self.contents.versions
            self.kinds = {**self.contents.kinds}
        environment = marker_environment(self.request.python, self.request.machine)
        state = PythonState(layout, known, self.contents, environment)
        layouts = WheelLayouts(layout, self.request.cache / "wheel-layouts")
        for prepared, (installer, addon) in zip(installations, addons, strict=True):
            prepared.wheels = chosen_wheels(
                installer, addon, prepared.install.arguments, state, layouts
            )
            prepared.gone = state.install(prepared.install.addon, prepared.wheels)

    def _replaces(
        self,
        installations: Sequence[_Installation],
        addons: Sequence[tuple[ModuleType, AddonWheels]],
        known: Mapping[str, str],
    ) -> bool:
        """Whether an add-on moves something that the base has, whose files must be known then."""
        for prepared, (installer, addon) in zip(installations, addons, strict=True):
            options = installer.parse_arguments(prepared.install.arguments)
            movable = installer.movable_names(options, addon.text)
            pins = installer.chosen(installer.read_pins(addon.text), known, movable)
            if any(pin.name in known for pin in pins):
                return True
        return False

    def _compare(self, locked: Mapping[str, str]) -> None:
        """Raises SlipwayError where the lock tells other packages than the base has."""
        assert self.contents
        versions = self.contents.versions
        wrong = [
            f"{name} {versions.get(name, '(none)')} (locked: {version})"
            for name, version in sorted(locked.items())
            if versions.get(name) != version
        ]
        if wrong:
            raise SlipwayError(
                f"the base has other packages than its lock: {', '.join(wrong[:5])}",
                where=self.base.where,
                cure="Run `./inv lock`.",
            )

    def _addon(self, install: InstallStep) -> tuple[ModuleType, AddonWheels]:
        folder = f"{install.folder}/"
        files = {
            file.path.removeprefix(folder): file.source
            for file in self.request.context
            if file.path.startswith(folder)
        }
        script, pins = files.get("install_addons.py"), files.get(f"{install.addon}.txt")
        if not isinstance(script, Path) or not isinstance(pins, bytes):
            raise SlipwayError(f"the context has no pins of {install.addon}")
        wheels = {
            str(parse_wheel_filename(source.name)[0]): source
            for path, source in files.items()
            if path.startswith("wheels/") and isinstance(source, Path)
        }
        return load_installer(script), AddonWheels(pins.decode(), wheels)

    def _kinds_below(self, ran: Mapping[int, LayerBlob]) -> dict[int, Mapping[str, str]]:
        """By step, the kinds of paths that are known below it: the base's, and those of layers of
        steps before it that ran. What a later one brings is not there yet."""
        below: dict[int, Mapping[str, str]] = {}
        kinds: Mapping[str, str] = self.kinds
        layers: list[LayerBlob] = []
        for step in self.steps:
            below[id(step)] = kinds
            if id(step) in ran:
                layers.append(ran[id(step)])
                brought = read_ran_layers(layers, self._notes, self.on_event)
                kinds = ChainMap(folders_and_links(brought), self.kinds)
        return below

    def _plans(
        self, installations: Mapping[int, _Installation], ran: Mapping[int, LayerBlob]
    ) -> dict[int, list[LayerPlan]]:
        """The layers of each step that has some; those of `ran` steps are made already."""
        plans: dict[int, list[LayerPlan]] = {}
        below = self._kinds_below(ran)
        for step in self.steps:
            if step.name == "COPY" and not step.runs_in_base:
                files = copied_files(step, self.request.context)
                plan = layer_plan(step.section, files, self.folders, below[id(step)])
                plans[id(step)] = [plan]
        others = len(self.base.layers) + len(plans) + len(ran)
        others += sum(1 for installed in installations.values() if installed.gone)
        grains = wheel_grains(
            [(installed.wheels, [installed.install.addon]) for installed in installations.values()],
            others,
        )
        for (key, installed), groups in zip(installations.items(), grains, strict=True):
            plans[key] = [
                LayerPlan(f"{installed.install.addon}: what it replaces", (), (), installed.gone)
            ] * bool(installed.gone)
            for group in groups:
                names = ", ".join(f"{wheel.name} {wheel.version}" for wheel in group)
                files = tuple(file for wheel in group for file in wheel.files)
                plans[key].append(
                    layer_plan(
                        f"{installed.install.addon}: {names}", files, self.folders, below[key]
                    )
                )
        return plans
