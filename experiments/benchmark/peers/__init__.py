"""The contenders, each written as its library's documentation would write it."""
