"""The ports on real clients: the object store, Kafka, the predictor; only here are minio, kafka and aiohttp known."""
