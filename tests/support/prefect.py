"""The services of the demonstration, which are what the tests need too."""

from demo.services import Server, Worker, free_port, process, quiet, serve, start, work

__all__ = ["Server", "Worker", "free_port", "process", "quiet", "serve", "start", "work"]
