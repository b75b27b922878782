"""Runs in a build: adds one add-on's locked wheels to a base without moving what the base has.

    PYTHON install_addons.py ADDON [--replace ADDON] [--may-move NAME]...

Beside this file: ADDON.txt (hashed pins; `# asked:` lines name what the add-on itself is),
wheels/ (exactly those), bootstrap/ (a pip of our own: environments made by uv have none, and one
pip for all bases behaves one way). Stdlib only, Python 3.9 and newer, no network.

A distribution that the base has is kept, whatever version is locked, unless it is asked for by an
add-on that is replaced, or named by --may-move. That this fits is for `pip check` to say: the
build fails where it finds a problem that the base did not have.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple


class Pin(NamedTuple):
    """One pin of the requirement file; `text` is its line, hashes included."""

    name: str
    version: str
    text: str


def canonical(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(text: str) -> list[Pin]:
    """The pins of a requirement file, continuation lines joined, comments dropped."""
    pins = []
    for line in text.replace("\\\n", " ").splitlines():
        stripped = re.sub(r"(^|\s)#.*", "", line).strip()
        if stripped:
            name, _, version = stripped.split()[0].partition("==")
            pins.append(Pin(canonical(name), version, stripped))
    return pins


def read_asked(text: str) -> set[str]:
    """Names of the distributions that the add-on itself is."""
    asked = re.findall(r"^# asked: ([A-Za-z0-9][A-Za-z0-9._-]*)", text, re.MULTILINE)
    return {canonical(name) for name in asked}


def installed() -> dict[str, str]:
    """Distributions that this interpreter sees; the first of a name wins, as for imports."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(canonical(name), distribution.version)
    return found


def problems(said: str) -> dict[tuple[str, str], str]:
    """`pip check` by (who, about what), so that a new version of either is no new problem."""
    found = {}
    for line in said.splitlines():
        words = line.split()
        match = re.match(r"(\S+) \S+ (?:has requirement|requires) ([A-Za-z0-9._-]+)", line)
        if match:
            found[canonical(match[1]), canonical(match[2])] = line
        elif "not supported on this platform" in line:
            found[canonical(words[0]), "platform"] = line
    return found


class Pip:
    """The pip beside this file, unpacked into `folder` and run by the base's own interpreter."""

    def __init__(self, here: Path, folder: Path) -> None:
        """Raises SystemExit where there is none."""
        wheels = sorted((here / "bootstrap").glob("pip-*.whl"))
        if not wheels:
            raise SystemExit(f"there is no pip in {here / 'bootstrap'}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            # Without its metadata, by which it would count as installed.
            code = [name for name in wheel.namelist() if name.startswith("pip/")]
            wheel.extractall(folder, code)
        self.folder = folder
        # Whatever a base sets (PIP_INDEX_URL, a pip.conf) is not for this.
        self.command = [sys.executable, "-B", str(folder / "pip"), "--isolated", "--no-input"]
        self.command.append("--disable-pip-version-check")

    def check(self) -> dict[tuple[str, str], str]:
        """What does not fit together in the environment now."""
        done = subprocess.run(
            [*self.command, "check"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, 1) or "Traceback" in done.stderr:
            raise SystemExit(f"pip check failed: {done.stderr.strip()}")
        return problems(done.stdout)

    def install(self, pins: list[Pin], wheels: Path) -> None:
        """Install exactly these pins from the folder of wheels."""
        requirements = self.folder / "requirements.txt"
        requirements.write_text("".join(f"{pin.text}\n" for pin in pins), encoding="utf-8")
        options = ["--no-deps", "--no-index", "--require-hashes", "--no-cache-dir", "--quiet"]
        # Bytecode carries the time of the build: without it the same wheels give the same files.
        options += ["--no-compile"]
        options += ["--root-user-action=ignore", "--no-warn-script-location"]
        options += ["--find-links", str(wheels), "--requirement", str(requirements)]
        done = subprocess.run([*self.command, "install", *options], check=False)
        if done.returncode != 0:
            raise SystemExit("pip could not install the wheels (above)")


def chosen(pins: list[Pin], before: dict[str, str], movable: set[str]) -> list[Pin]:
    """The pins to install: what is absent, and what differs and may move."""
    return [
        pin
        for pin in pins
        if pin.name not in before or (pin.name in movable and before[pin.name] != pin.version)
    ]


def report(pins: list[Pin], before: dict[str, str], after: dict[str, str]) -> list[str]:
    """One line a package: what became of it."""
    lines = []
    for pin in pins:
        old, new = before.get(pin.name), after.get(pin.name, "(missing)")
        if old is None:
            lines.append(f"installed {pin.name} {new}")
        elif old != new:
            lines.append(f"replaced {pin.name} {old} -> {new}")
        elif new == pin.version:
            lines.append(f"kept {pin.name} {new}")
        else:
            lines.append(f"kept {pin.name} {new} (locked: {pin.version})")
    return lines


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("addon")
    parser.add_argument("--replace", action="append", default=[], metavar="ADDON")
    parser.add_argument("--may-move", action="append", default=[], metavar="NAME")
    return parser.parse_args(words)


def movable_names(arguments: argparse.Namespace, text: str) -> set[str]:
    """Distributions of the base that may get another version; `text` is the add-on's pins."""
    movable = {canonical(name) for name in [*arguments.may_move, *arguments.replace]}
    if arguments.addon in arguments.replace:
        movable |= read_asked(text)
    return movable


def main() -> None:
    """Install, compare, report."""
    arguments = parse_arguments()
    here = Path(__file__).resolve().parent
    text = (here / f"{arguments.addon}.txt").read_text(encoding="utf-8")
    pins = read_pins(text)
    movable = movable_names(arguments, text)

    before = installed()
    todo = chosen(pins, before, movable)
    worse: list[str] = []
    if todo:
        with tempfile.TemporaryDirectory() as folder:
            pip = Pip(here, Path(folder))
            fitted = pip.check()
            pip.install(todo, here / "wheels")
            worse = [line for key, line in sorted(pip.check().items()) if key not in fitted]
    after = installed()
    print("\n".join(report(pins, before, after)), flush=True)

    may_differ = {pin.name for pin in todo}
    for name, version in before.items():
        if after.get(name) != version and name not in may_differ:
            raise SystemExit(f"{name} {version} of the base became {after.get(name, 'nothing')}")
    for pin in todo:
        if after.get(pin.name) != pin.version:
            raise SystemExit(f"{pin.name} {pin.version} is not there after its installation")
    if worse:
        raise SystemExit(
            f"{arguments.addon} does not fit this base:\n  "
            + "\n  ".join(worse)
            + "\nList what has to move under `moves:` of the base in versions.yaml with a reason,"
            " or choose another version of the add-on; then run `./inv lock`."
        )


if __name__ == "__main__":
    main()
