"""Models that run on a server, asked over HTTP."""
