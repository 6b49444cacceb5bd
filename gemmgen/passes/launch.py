"""The geometry of a launch."""

from __future__ import annotations

from gemmgen.grouping import Grouping
from gemmgen.plan import Cluster, Launch, Scheduler, Smem, Warps
from gemmgen.spec import GemmSpec

# One in so many multiprocessors may be left idle, so that every row of tiles has as many CTAs:
# otherwise CTAs change the row on their way and no longer read the same columns of B at the same
# time. Or so that every CTA has as many tiles: those left out would not make the waves fewer, and
# large kernels are 1 to 2 % faster without them (docs/kernel-notes.md).
MOST_IDLE = 32


def choose_launch(
    spec: GemmSpec,
    grouping: Grouping,
    warps: Warps,
    cluster: Cluster,
    smem: Smem,
    scheduler: Scheduler,
    *,
    for_few_rows: bool,
) -> Launch:
    """Persistent: whole clusters, as many as run at once, never more than there are tiles.

    A few less where the host knows the tiles and that takes as many waves. Not for few rows: there
    all multiprocessors draw weights.
    """
    even = grouping.tiles_known and not for_few_rows
    reason = "persistent: one CTA a multiprocessor walks over the tiles"
    if scheduler.by_row:
        reason += ", as many for every row of tiles"
    elif even:
        reason += ", as many as take no more waves"
    if spec.pdl:
        reason += "; starts while the kernel before it drains, and waits before it touches memory"
    return Launch(
        threads=warps.threads,
        cluster=cluster.size,
        shared_bytes=smem.bytes,
        programmatic=spec.pdl,
        reason=reason,
        most_idle=MOST_IDLE if scheduler.by_row or even else 0,
    )
