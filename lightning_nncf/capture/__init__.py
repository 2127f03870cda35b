"""One run of a network recorded as a graph, after which the network is as it was.

`trace` is what others call; `values` gives the order of tensors inside nested values on which traces and hooks both
rely, and `preserve` what keeps a network as it was found. Nothing here changes what a network computes.
"""
