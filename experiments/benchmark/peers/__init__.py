"""The contenders, each written as its own documentation would write it."""
