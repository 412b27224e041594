"""Refinement of label maps: fully connected random fields, grids, spatial models."""
