"""What all algorithms share: their base class, registry, composition and checkpoints.

Algorithms import `algorithm`, `registry`, `stage` and how weights are found; what trains, saves or exports imports
`compressed`, `compression` and `checkpoint`. Nothing here knows an algorithm by its name, or a Trainer.
"""
