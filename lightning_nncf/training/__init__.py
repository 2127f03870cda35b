"""Training that knows where it is going: decisions over epochs that concern all algorithms together.

Nothing here knows Lightning: the callback brings metrics and does what is decided.
"""
