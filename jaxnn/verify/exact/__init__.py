"""Jaxprs on exact numbers: balls enclose the true value, residues certify an identity."""
