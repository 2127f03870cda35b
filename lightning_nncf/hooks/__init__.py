"""Insertion points at work in a running network."""
