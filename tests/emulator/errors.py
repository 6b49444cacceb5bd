"""What the emulator complains about: one flat family; a test can name the defect it expects."""

from __future__ import annotations


class EmulatorError(Exception):
    """Base of all complaints; raised during a launch it carries the place in the PTX text."""


class Unsupported(EmulatorError):
    """The PTX text uses something that the emulator does not model."""


class Fault(EmulatorError):
    """An instruction was used against its rules: out of bounds, misaligned, a count overrun."""


class Hazard(EmulatorError):
    """Two accesses are not ordered by any wait or fence: the result depends on luck."""


class Deadlock(EmulatorError):
    """No warp can go on and nothing is under way."""
