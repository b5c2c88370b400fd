"""Sparse autoencoders of SAELens: trained for all members and sites at once, scored, matched and ported."""
