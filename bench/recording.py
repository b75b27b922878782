"""A terminal recording as an SVG picture: commands really run, each line when it really came.

    python -m bench.recording docs/ship.svg -- "./inv plan local" "./inv ship"

Runs each command in the checkout on a terminal of its own, without colours. The picture plays once:
lines appear at their own times, long waits are cut to two seconds, and it says so. Where motion is
not wanted (prefers-reduced-motion, print) all lines are there at once. The text is text: it can be
selected and read aloud.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHOWN_ROOT = "~/slipway"
"""Where the checkout lies is shown as this."""

COLUMNS, LONGEST_WAIT_S, TYPING_S = 100, 2.0, 0.8
_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00-\x08\x0b-\x1f\x7f]")

STYLE = """
text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #d8dee9; }
.prompt { fill: #8fbcbb; }
.line { animation: show 1ms linear both; }
@keyframes show { from { opacity: 0; } to { opacity: 1; } }
@media (prefers-reduced-motion: reduce) { .line { animation: none; } }
@media print { .line { animation: none; } }
"""


@dataclass(frozen=True)
class RecordedLine:
    """A line, and how long after the one before it came."""

    text: str
    wait: float
    prompt: bool = False


def record(command: str) -> list[RecordedLine]:
    """Run one command; its lines. Raises SystemExit where it fails."""
    main, other = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": str(COLUMNS)}
    process = subprocess.Popen(
        command, shell=True, cwd=ROOT, env=environment,
        stdin=subprocess.DEVNULL, stdout=other, stderr=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    os.close(other)
    assert process.stderr is not None
    lines, last = [RecordedLine(f"$ {command}", TYPING_S, prompt=True)], time.monotonic()
    parts = {main: b"", process.stderr.fileno(): b""}
    while parts:
        for handle in select.select(list(parts), [], [])[0]:
            try:
                data = os.read(handle, 65536)
            except OSError:  # the terminal's other side is closed
                data = b""
            whole, parts[handle] = (parts[handle] + data).rsplit(b"\n", 1) if b"\n" in data else (
                b"", parts[handle] + data)  # fmt: skip
            for line in whole.split(b"\n") if whole else ():
                now = time.monotonic()
                text = _CONTROL.sub(b"", line).decode("utf-8", "replace").rstrip()
                text = text.replace(str(ROOT), SHOWN_ROOT)
                lines.append(RecordedLine(text[:COLUMNS], now - last))
                last = now
            if not data:
                del parts[handle]
    if process.wait() != 0:
        sys.exit(f"{command}: exit code {process.returncode}")
    return lines


def picture(lines: list[RecordedLine]) -> str:
    """The SVG."""
    height, step = 20 * len(lines) + 40, 20
    rows, moment, cut = [], 0.0, 0.0
    for number, line in enumerate(lines):
        moment += min(line.wait, LONGEST_WAIT_S)
        cut += max(line.wait - LONGEST_WAIT_S, 0.0)
        kind = "line prompt" if line.prompt else "line"
        rows.append(
            f'<text class="{kind}" x="12" y="{step * number + 28}" xml:space="preserve" '
            f'style="animation-delay:{moment:.2f}s">{escape(line.text)}</text>'
        )
    told = "; ".join(line.text.removeprefix("$ ") for line in lines if line.prompt)
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{COLUMNS * 8 + 24}" height="{height}" '
        f'viewBox="0 0 {COLUMNS * 8 + 24} {height}" role="img" aria-labelledby="title">',
        f'<title id="title">A terminal: {escape(told)}</title>',
        f"<desc>Recorded by bench/recording.py; waits of {cut:.0f} seconds in all are cut.</desc>",
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" rx="6" fill="#1e222a"/>',
        *rows,
        "</svg>",
        "",
    ])  # fmt: skip


def main() -> None:
    """Record, and write the picture."""
    output, _, *commands = sys.argv[1:]
    lines = [line for command in commands for line in record(command)]
    Path(output).write_text(picture(lines), "utf-8")
    print(f"{output}: {len(lines)} lines")


if __name__ == "__main__":
    main()
