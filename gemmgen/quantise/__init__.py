"""Kernels that quantise: numerics.quantize, bit for bit, at the speed of memory.

`plan` decides what a kernel is, `templates/quantise` prints it, `build` compiles and stores it like
any other kernel, `launch` says what a call gives it, `kernels` does so with torch tensors.
"""
