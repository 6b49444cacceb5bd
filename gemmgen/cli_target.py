"""Which GPU kernels are for: options of several verbs, and what the planner makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from gemmgen.errors import UnsupportedError

if TYPE_CHECKING:
    from gemmgen.target import Target

Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The GPU that the kernels are for, as its driver names it: plans differ. By default "
        "the first of this machine, an H200 where there is none.",
    ),
]
Sms = Annotated[
    int | None,
    typer.Option(min=1, help="Multiprocessors that kernels may use; an H200 has 132."),
]


def target_of(device: str | None, sms: int | None) -> Target:
    """What the planner counts on. Raises UnsupportedError for a GPU of unknown size."""
    from gemmgen.target import DEVICES, hopper

    if device is None:
        from gemmgen.runtime.devices import first_target  # these bindings take a tenth of a second

        target = first_target()
    elif device in DEVICES:
        target = DEVICES[device]
    elif sms is not None:
        target = hopper(device, sms)
    else:
        raise UnsupportedError(
            "this GPU is not known",
            where="--device",
            expected=", ".join(DEVICES),
            got=device,
            fix="where the verb takes --sms, say the number of its multiprocessors, too",
        )
    return target if sms is None else replace(target, sms=sms)
