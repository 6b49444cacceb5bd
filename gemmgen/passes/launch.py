"""The geometry of a launch."""

from __future__ import annotations

from gemmgen.plan import Cluster, Launch, Smem, Warps


def choose_launch(warps: Warps, cluster: Cluster, smem: Smem) -> Launch:
    """Persistent: whole clusters, as many as run at once, never more than there are tiles."""
    return Launch(
        threads=warps.threads,
        cluster=cluster.size,
        shared_bytes=smem.bytes,
        reason="persistent: one CTA a multiprocessor walks over the tiles",
    )
