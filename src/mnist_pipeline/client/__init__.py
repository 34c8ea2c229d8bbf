"""For those who send images and want to know what became of them: upload or ask, and read the results from Kafka."""
