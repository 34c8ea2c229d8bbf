"""The path of an event and all that it needs to know, pure but for its ports: no server and no client is known here."""
