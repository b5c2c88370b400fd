"""Small GPT-NeoX models, the architecture of Pythia, trained here."""

from polymorph.models.gpt_neox.config import GPTNeoXArchitecture

ARCHITECTURE = GPTNeoXArchitecture
