"""The geometry of a launch."""

from __future__ import annotations

from gemmgen.plan import Cluster, Launch, Smem, Warps
from gemmgen.spec import GemmSpec


def choose_launch(spec: GemmSpec, warps: Warps, cluster: Cluster, smem: Smem) -> Launch:
    """Persistent: whole clusters, as many as run at once, never more than there are tiles."""
    reason = "persistent: one CTA a multiprocessor walks over the tiles"
    if spec.pdl:
        reason += "; starts while the kernel before it drains, and waits before it touches memory"
    return Launch(
        threads=warps.threads,
        cluster=cluster.size,
        shared_bytes=smem.bytes,
        programmatic=spec.pdl,
        reason=reason,
    )
