"""Compression algorithms, one folder each; importing a folder registers its algorithms.

What stands above meets them as `lightning_nncf.core.algorithm.Algorithm`; export and proof alone know the modules that
some of them insert, to write and check them. No algorithm imports another: what two of them need lies below.
"""
