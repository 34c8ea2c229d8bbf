"""One module a command; the place where settings, adapters, the path and the model are put together."""
