"""Every derivative, identity and update rule as printed in the sources, a file per source.

A printed statement that does not hold is followed by the correct statement, a further claim with
``corrects``. ``python -m experiments.derivations`` prints the verdicts.
"""
