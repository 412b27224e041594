"""Partition: affinity graphs cut into objects, losses on partitions, and scores."""
