"""`mnist-pipeline setup`: what a site needs around the transformer, made and checked.

`setup.py` is the command; `buckets.py` and `topics.py` know the store and Kafka; `bucket_configs.py` compares and
edits a bucket's configurations as XML; `parts.py` has what they share.
"""
