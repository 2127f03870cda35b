"""Schedules: what counts steps, and pure functions of progress."""
