"""Photographs → descriptors and feature maps, in batches, and what is kept of it on disk."""
