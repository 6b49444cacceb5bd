"""The copies of the mainloop: one for each way, or for some ways, to straddle scale blocks of B."""

from __future__ import annotations

from dataclasses import dataclass

from gemmgen.plan import KernelPlan
from gemmgen.spelling_function import DeviceFunction

_CALL_COLUMN = 10


@dataclass(frozen=True)
class MainloopCopies:
    """What differs between them, and their calls. All is empty where there is one mainloop."""

    template: str  # template <uint32_t kFirstBlock, uint32_t kWays>
    same: str  # <kFirstBlock, kWays>: what one function of a copy gives to another
    calls: dict[str, list[int]]  # the columns in a tile's first block that each is for


def mainloop_copies(plan: KernelPlan, mainloop: DeviceFunction) -> MainloopCopies:
    promotion = plan.promotion
    if not promotion.straddles:
        return MainloopCopies("", "", {})
    shared = promotion.shared_columns
    names = ["kFirstBlock", *["kWays"] * (shared > 0)]
    calls = {}
    for first, ways in promotion.copies.items():
        count = f", {(ways[-1] - first) // shared + 1}" if shared else ""
        calls[mainloop.call(_CALL_COLUMN, f"<{first}{count}>")] = ways
    return MainloopCopies(
        template=f"template <{', '.join(f'uint32_t {name}' for name in names)}>",
        same=f"<{', '.join(names)}>",
        calls=calls,
    )
