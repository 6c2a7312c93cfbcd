"""One question each: what is measured, the tables it makes, the goals it has to reach."""
