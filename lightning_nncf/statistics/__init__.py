"""Statistics of compressed networks as torchmetrics metrics, one file for each kind of algorithm.

An algorithm returns these metrics from `metrics` and what they are updated with from `observations`; loggers get what
they compute. A metric takes tensors and adds them up: it never looks at a network.
"""
