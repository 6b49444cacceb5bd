"""The diagnostics of a compiler, cut down to what a person reads: errors first, then the rest.

Knows how NVRTC and ptxas lay out a message: a line at the margin, its explanation indented below.
"""

from __future__ import annotations

import re

_ERROR = r"\b(?:error|fatal)\s*:"
_LINES = 30
_COLUMNS = 240  # the operand list of one wgmma takes more than 1000


def trim_log(log: str) -> str:
    """Keep the first lines of a log, errors before all others, and say how much is left out."""
    messages: list[list[str]] = []
    for line in log.splitlines():
        if not line.strip():
            continue
        if line[0].isspace() and messages:
            messages[-1].append(line)
        else:
            messages.append([line])
    messages.sort(key=lambda message: re.search(_ERROR, message[0]) is None)
    lines = [_shorten(line) for message in messages for line in message]
    if len(lines) > _LINES:
        lines[_LINES:] = [f"... and {len(lines) - _LINES} more lines"]
    return "\n".join(lines)


def _shorten(line: str) -> str:
    return line if len(line) <= _COLUMNS else line[: _COLUMNS - 4] + " ..."
