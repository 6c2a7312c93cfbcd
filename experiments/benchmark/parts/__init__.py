"""One question each: how to measure, tables, required figures; every module has a ``PART``."""
