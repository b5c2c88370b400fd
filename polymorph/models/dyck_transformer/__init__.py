"""The paper's two-layer transformer for Dyck-3."""

from polymorph.models.dyck_transformer.config import DyckTransformerConfig

ARCHITECTURE = DyckTransformerConfig
