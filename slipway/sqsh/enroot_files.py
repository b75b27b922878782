"""Image config -> the files that `enroot import` writes into an image.

The formats were read from NVIDIA/enroot:src/docker.sh (docker::configure), doc/image-format.md.
Two differences, both on purpose: a word of ENTRYPOINT or CMD that holds a newline stays one word
(enroot splits it), and the working directory is escaped (enroot pastes it between double quotes).
"""

from __future__ import annotations

import re

from slipway.core import SlipwayError
from slipway.sqsh.image_documents import ImageConfig

RC_LOCAL = (
    "# This file is sourced by /etc/rc when the container starts.\n"
    "# It can be used to manipulate the entrypoint or the command of the container.\n"
)

NAME_MAX = 255
"""Bytes of a name, on Linux."""
_FSTAB_LINE_MAX = 3500
"""enroot-mount reads lines of 4,096 bytes; the place of the root is put in before."""

_ANSI_C = {0x1B: "E", 7: "a", 8: "b", 12: "f", 10: "n", 13: "r", 9: "t", 11: "v", 92: "\\", 39: "'"}


def quote_value(word: str) -> str:
    """Quote a word as bash's ``${word@Q}`` does in a UTF-8 locale.

    Plain words go between single quotes; one with a character that cannot be printed becomes
    ``$'...'`` with ANSI-C escapes (bash: lib/sh/shquote.c, lib/sh/strtrans.c).
    """
    if word == "'":
        return "\\'"
    if word.isprintable():
        return "'" + word.replace("'", "'\\''") + "'"
    out = []
    for character in word:
        if letter := _ANSI_C.get(ord(character)):
            out.append("\\" + letter)
        elif character.isprintable():
            out.append(character)
        else:
            out.extend(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
    return "$'" + "".join(out) + "'"


def _between_double_quotes(text: str) -> str:
    for character in '\\"$`':
        text = text.replace(character, "\\" + character)
    return text


def rc_script(config: ImageConfig, uri: str) -> str:
    """/etc/rc: where the image comes from, its labels, its working directory and its command."""
    cmd = config.cmd if config.entrypoint or config.cmd else ("/bin/sh",)
    entrypoint = " ".join(quote_value(word) for word in config.entrypoint)
    arguments = " ".join(quote_value(word) for word in cmd)
    workdir = _between_double_quotes(config.working_dir or "/")
    labels = [f"# {key} {value}".replace("\n", " ") for key, value in config.labels]
    lines = [
        f"# enroot-provenance: {uri}",
        *labels,
        "",
        f'mkdir -p "{workdir}" 2> /dev/null',
        f'cd "{workdir}" && unset OLDPWD || exit 1',
        "",
        "if [ -s /etc/rc.local ]; then",
        "    . /etc/rc.local",
        "fi",
        "",
        "if [ $# -gt 0 ]; then",
        f'    exec {entrypoint} "$@"',
        "else",
        f"    exec {entrypoint} {arguments}",
        "fi",
    ]
    return "\n".join(lines) + "\n"


def environment_file(config: ImageConfig) -> str:
    """/etc/environment: one `KEY=value` a line.

    Raises SlipwayError for a value that holds a newline: the file has no way to say it, and what
    follows the newline would be read as another variable.
    """
    for entry in config.env:
        if "\n" in entry:
            name = entry.partition("=")[0]
            raise SlipwayError(
                f"the environment variable {name!r} of the image holds a newline, which enroot's"
                " /etc/environment cannot carry",
                cure="Set it in the launcher or in a file that the job reads, not with ENV.",
            )
    return "".join(entry + "\n" for entry in config.env)


def unmountable_volumes(config: ImageConfig) -> tuple[str, ...]:
    """Volumes that enroot cannot mount, or would mount elsewhere.

    enroot writes them all the same, and then its container does not start, or has another path.
    """
    return tuple(volume for volume in config.volumes if not _is_mountable(volume))


def _is_mountable(volume: str) -> bool:
    r"""Whether a line of fstab says the path, and enroot-mount can make it there.

    Blanks end a field, `\040` is one, and `${NAME}` becomes a variable's value; `..` is not
    resolved before what it leaves is there; the host's /proc and /sys take no new folders.
    """
    names = volume.split("/")
    line = _fstab_line(volume).encode("utf-8", "surrogateescape")
    return (
        volume.startswith("/")
        and volume.isprintable()
        and not any(text in volume for text in (" ", "\\", "${"))
        and ".." not in names
        and not re.match("/+(proc|sys)/+[^/]", volume)
        and all(len(name.encode("utf-8", "surrogateescape")) <= NAME_MAX for name in names)
        and len(line) < _FSTAB_LINE_MAX
    )


def _fstab_line(volume: str) -> str:
    return f"${{ENROOT_ROOTFS}}{volume} {volume} none x-create=dir,bind,rw,nosuid,nodev\n"


def fstab_file(config: ImageConfig) -> str:
    """/etc/fstab: each volume is bound onto itself, so that it is writable in the container."""
    return "".join(map(_fstab_line, filter(_is_mountable, config.volumes)))


def enroot_files(config: ImageConfig, uri: str) -> dict[str, bytes]:
    """Path below the root -> content of every file that `enroot import` writes."""
    return {
        "etc/environment": environment_file(config).encode("utf-8", "surrogateescape"),
        "etc/fstab": fstab_file(config).encode(),
        "etc/rc": rc_script(config, uri).encode("utf-8", "surrogateescape"),
        "etc/rc.local": RC_LOCAL.encode(),
    }
