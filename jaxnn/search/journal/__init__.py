"""What a search remembers, and what of it survives a crash."""
