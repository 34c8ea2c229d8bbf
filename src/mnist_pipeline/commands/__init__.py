"""One module a command; the place where settings, adapters, the path and the model are put together.

`commands/NAME.py` has its `parser(task)`, and its `main(argv, *, task)`, which gives the exit code.
"""

COMMANDS = {
    "serve": "the transformer, until SIGTERM (what is meant where no command is given)",
    "consume": "the same path straight from Kafka, in batches, until SIGTERM",
    "setup": "makes buckets, topics and the notification of a site, or checks them",
    "submit": "uploads images, or posts them inline, and prints their trace ids",
    "results": "prints predictions as they lie on Kafka; with a trace id, that of one image",
    "bench": "uploads objects to a site, and tells how many it files a second and how long one takes",
    "reconcile": "finds the objects whose notification was lost, and sends them down the same path",
    "replay": "sends dead letters, or rejected objects, down the path again",
    "source": "delivers a topic's records over HTTP where there is no Knative",
    "web": "shows a site live in a browser",
    "demo": "the whole path on this machine: uploads objects and shows where they go",
}
"""What each command does."""

EXIT_CODES = {
    0: "all is as it should be",
    1: "something is not: the lines on the standard error say what",
    2: "the command line, a setting or the task cannot work; nothing was begun",
    130: "stopped by Ctrl-C",
    141: "whoever read the output has stopped reading",
}
"""What the exit code of each command says."""
