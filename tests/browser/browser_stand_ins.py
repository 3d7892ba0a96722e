"""What the tests of the page and their fixtures share."""

SECONDS = 60
"""For everything that a busy machine may be slow at."""
HOSTILE = "<img src=x onerror=alert(1)>"
"""The name of a class."""
