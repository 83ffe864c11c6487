"""Fuzzing of everything that reads what strangers, backends and operators write.

A target takes bytes and raises when a promise is broken. `python -m fuzz` drives the targets with coverage guidance; the
inputs that it found worth keeping are in `corpus/`, and the tests run them all.
"""
