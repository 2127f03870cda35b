"""Compression algorithms, one folder each; none imports another."""
