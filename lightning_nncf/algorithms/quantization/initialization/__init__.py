"""Between building the quantizers and the first step: ranges from data, SmoothQuant, bias correction.

`range_init` and `adjustment` are what the algorithm and searches for bit widths call; statistics are collected in one
pass over batches and turn into ranges. Where quantizers stand and how many bits they have is decided elsewhere.
"""
