"""The batches of a Trainer's loop, for readers of which training must not notice anything.

Copies of loaders where data can be read again, streams that are kept and replayed where they cannot. Which step or
network the batches are for is not known here.
"""
