"""Statements as data: a statistic read from the tables, a threshold, a verdict and its reason."""
