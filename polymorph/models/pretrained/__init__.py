"""Causal language models that exist, taken in by reference and never trained here."""

from polymorph.models.pretrained.config import PretrainedArchitecture

ARCHITECTURE = PretrainedArchitecture
