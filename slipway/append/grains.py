"""Which wheels have a layer of their own, so that one changed wheel moves its own bytes only.

The rule: a wheel of 64 kB or more has a layer of its own, from the largest down, as long as the
image has at most 100 layers with the base's; the others of an add-on share one. What an add-on
itself is comes after what it needs: it changes most often.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from slipway.append.wheel_files import InstalledWheel

MOST_LAYERS = 100
"""Of an image. Engines take 127 (moby/moby:layer), and overlayfs as many lower folders as fit
into one page of mount options."""

OWN_LAYER_BYTES = 64_000


def wheel_grains(
    addons: Sequence[tuple[Sequence[InstalledWheel], Iterable[str]]], other_layers: int
) -> list[list[list[InstalledWheel]]]:
    """The wheels of each layer of each add-on, lowest first.

    `addons` has wheels and the names of what was asked for; `other_layers` counts those of the
    base and of all that is no wheel.
    """
    room = MOST_LAYERS - other_layers - len(addons)  # one for small ones of each add-on
    everything = [
        (wheel.size, wheel.name) for wheels, _ in addons for wheel in wheels if _is_large(wheel)
    ]
    own = {name for _, name in sorted(everything, reverse=True)[: max(0, room)]}
    grains = []
    for wheels, asked in addons:
        by_size = sorted(wheels, key=lambda wheel: (-wheel.size, wheel.name))
        small = sorted((w for w in wheels if w.name not in own), key=lambda wheel: wheel.name)
        wanted = {*asked}
        lower = [[wheel] for wheel in by_size if wheel.name in own - wanted]
        upper = [[wheel] for wheel in by_size if wheel.name in own & wanted]
        grains.append([*lower, *([small] if small else []), *upper])
    return grains


def _is_large(wheel: InstalledWheel) -> bool:
    return wheel.size >= OWN_LAYER_BYTES
