"""Capture of a network: its graph, addresses, scopes and hooks."""
