"""The transformer beside a bare script, an empty KServe and one in the style of KServe's sample: `make bench`."""
