"""A question per module: how to measure, tables, required figures, together in ``PART``."""
