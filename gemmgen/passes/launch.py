"""The geometry of a launch."""

from __future__ import annotations

from gemmgen.plan import Cluster, Launch, Scheduler, Smem, Warps
from gemmgen.spec import GemmSpec

# One in so many multiprocessors is left idle so that every row of tiles has as many CTAs; otherwise
# CTAs change the row on their way and no longer read the same columns of B at the same time.
MOST_IDLE = 32


def choose_launch(
    spec: GemmSpec, warps: Warps, cluster: Cluster, smem: Smem, scheduler: Scheduler
) -> Launch:
    """Persistent: whole clusters, as many as run at once, never more than there are tiles."""
    reason = "persistent: one CTA a multiprocessor walks over the tiles"
    if scheduler.by_row:
        reason += ", as many for every row of tiles"
    if spec.pdl:
        reason += "; starts while the kernel before it drains, and waits before it touches memory"
    return Launch(
        threads=warps.threads,
        cluster=cluster.size,
        shared_bytes=smem.bytes,
        programmatic=spec.pdl,
        reason=reason,
        most_idle=MOST_IDLE if scheduler.by_row else 0,
    )
