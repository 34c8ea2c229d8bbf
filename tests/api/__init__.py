"""Transformers as another team would write them, on nothing but what is public."""
