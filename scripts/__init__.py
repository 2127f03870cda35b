"""Commands for people who work with a copy of this repository."""
