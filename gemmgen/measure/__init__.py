"""Kernel times on a GPU, and what can be concluded from them.

`stopwatch` times launches side by side, `throttled` back to back at the power limit, `telemetry`
reads clock, power and temperature meanwhile, `variants` holds patched kernels against the unpatched
one; these need torch and a GPU. `paired` is plain arithmetic.
"""
