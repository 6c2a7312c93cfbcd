"""What goes wrong with data."""


class DataError(ValueError):
    """Data that cannot be used: what was found and what was expected, in one line."""


class MissingDataError(DataError, FileNotFoundError):
    """Data that is not there; catch it as DataError or as FileNotFoundError."""
