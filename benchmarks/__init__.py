"""Measurements behind the numbers in the README; each writes to ``benchmarks/results``."""
