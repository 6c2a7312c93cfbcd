"""The contenders, written after the documentation of each library."""
