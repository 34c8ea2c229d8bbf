"""`mnist-pipeline setup`: what a site needs around the transformer, made and checked; and `reconcile`.

`setup.py` does it part by part; `buckets.py` and `topics.py` say which parts there are; `bucket_configs.py` compares
and edits a bucket's configurations as XML; `parts.py` has what they share. `reconcile.py` finds what was missed, and
sends it down the path; `announcing.py` writes it to a topic, listed by `shards.py`; `progress.py` keeps how far.
"""
