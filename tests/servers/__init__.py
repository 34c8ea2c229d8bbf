"""Apache Kafka and MinIO themselves, built once and started by the tests that are marked `real`."""
