"""A search for people: tables, files, figures, progress."""
