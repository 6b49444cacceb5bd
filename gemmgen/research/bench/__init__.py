"""Time and correctness of kernels on this machine's GPU, beside their peers.

`run` is a whole run: which problems, whose kernels (`job`), in which process (`worker`).
There `field` checks who takes part: ours and the `peers`, on the same `operands` of one `problem`.
`limits` and `stand_in` say what a time is held against, `records` and `tables` how it is told.
"""
