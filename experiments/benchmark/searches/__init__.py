"""Searches as whole programs, each written as its library's documentation would write it.

Each is run as ``python -m experiments.benchmark.searches.NAME JOB`` and tells on standard output
what it measures on the validation examples.
"""
