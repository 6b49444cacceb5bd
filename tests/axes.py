"""What the axes of a spec are tried with: on the emulator, and on a GPU."""

from __future__ import annotations

# Scale granularities of A and of B. Every way that scales can travel meets every other.
SCALES = (
    ("none", "none"),
    ("tensor", "tensor"),
    ("row", "row"),
    ("row", "tensor"),
    ("1x128", "1x128"),
    ("128x128", "128x128"),
    ("1x128", "row"),
    ("row", "128x128"),
    ("tensor", "1x128"),
    ("128x128", "1x128"),
    ("1x128", "none"),
    ("none", "128x128"),
    ("1x64", "1x64"),
    ("1x32", "64x32"),
    ("64x64", "64x64"),
    ("1x160", "32x160"),
    ("1x256", "256x256"),
    ("1x128", "128x512"),
    ("1x96", "1x96"),
)
LAYOUTS = ("nt", "nn", "tn", "tt")
K_SIZES = (  # elements of K of each group, wrong numbers included: none may reach beyond A and B
    (256, 128, 0, 384),
    (0, 0, 0, 0),
    (0, 128, 640, 128),
    (200, -3, 2**31 - 1, 128),
)
