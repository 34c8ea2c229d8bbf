"""Straight from Kafka: the path fed by a consumer group, in batches."""
