"""The batches of a Trainer's loop, for readers of which training must not notice anything.

`sources` says what a loop reads and `loaders` gives it to initializations: from copies of loaders where data can be
read again, from streams that are kept and replayed where they cannot. Which step or network the batches are for is not
known here.
"""
