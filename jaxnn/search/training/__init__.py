"""The loop of a search: rounds, the buckets they are trained in, the population between them."""
