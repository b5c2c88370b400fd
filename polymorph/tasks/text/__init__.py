"""Texts to train on: read, told apart into splits, turned into tokens, and kept in the cohort's folder."""
