"""Attention over the paged cache as Triton kernels, one a file, and in plain torch, which they are held against.

`reference` needs torch alone. The kernels need Triton: compiled on CUDA, or in its interpreter on the CPU
(`TRITON_INTERPRET=1`). `python -m tinyllm.kernels.selftest` holds them all against a float64 oracle.
"""
