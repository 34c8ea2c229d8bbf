"""KServe's side: the model, its server, and what stands in front of both."""
