"""Every derivative, identity and update rule of the sources as they print it, a file per source.

A statement that does not hold as printed is followed by the correct one, a claim of its own that
``corrects`` it. Which ones those are, the verdicts say: ``python -m experiments.derivations``.
"""
