"""Memory of tensors that engines, rewrites and functions share: formats, blocks and borders."""
