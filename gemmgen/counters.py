"""What this process has done so far, for monitoring: counts only, since it started."""

from __future__ import annotations

from threading import Lock

_counts = {
    "builds": 0,  # kernels compiled
    "cache_hits": 0,  # kernels found in the cache
    "bundle_hits": 0,  # kernels found in a bundle
    "loads": 0,  # kernels put into the memory of a GPU
    "prepared_calls": 0,  # calls with tensors that had not been seen: checked, tensor maps encoded
    "conversions": 0,  # scales copied into the layout that a kernel reads
}
_lock = Lock()


def count(what: str) -> None:
    with _lock:
        _counts[what] += 1


def stats() -> dict[str, int]:
    """What happened behind calls in this process: builds, cache_hits, bundle_hits, loads (a kernel
    onto a GPU), prepared_calls (tensors seen for the first time) and conversions (of scales)."""
    with _lock:
        return dict(_counts)
