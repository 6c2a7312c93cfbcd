"""Claims from files, each judged in a process that can be stopped."""
