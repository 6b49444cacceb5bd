"""Kernel times on a GPU, and what can be concluded from them.

`stopwatch` times launches side by side, `telemetry` reads clock and power meanwhile, `variants`
holds patched kernels against the unpatched one; these need torch and a GPU. `paired` is plain
arithmetic.
"""
