"""What happens between building the quantizers and the first step: ranges from data, SmoothQuant, bias correction.

Statistics are collected in one pass over batches and turn into ranges of quantizers. Where quantizers stand and how
many bits they have is decided elsewhere.
"""
