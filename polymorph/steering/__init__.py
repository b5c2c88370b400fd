"""Steering vectors: what they are made from, what adding them does, and how the outcome is called."""
