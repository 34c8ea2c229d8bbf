"""What can be seen of the path while it runs: metrics, traces, and the form of the log."""
