"""For cookiecutter: take answers as they are typed."""

from jinja2.ext import Extension


class Verbatim(Extension):
    """Let an answer render as itself.

    With `--no-input`, cookiecutter renders each answer as a template of its own: `{{ 7*7 }}` would become 49, and what
    Jinja cannot read would end in a traceback. What cookiecutter renders of this template has a file's name or speaks
    of `cookiecutter`; an answer that does so too is refused by the hook.
    """

    def preprocess(self, source, name, filename=None):  # noqa: ARG002 - Jinja names it
        """Make a literal of a text that comes from no file and does not speak of cookiecutter."""
        if name is None and "{" in source and "cookiecutter" not in source:
            return "{{ " + repr(source) + " }}"
        return source
