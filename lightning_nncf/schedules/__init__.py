"""Schedules: pure functions of progress, and what counts epochs and steps for them.

Algorithms import the schedules that they offer, and `scheduler`, the counter. A schedule knows numbers alone: what a
level means, and what is done at one, is the algorithm's.
"""
