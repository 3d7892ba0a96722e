"""What the page may load and do, wherever it is served from."""

from __future__ import annotations

# The page loads nothing from elsewhere, and a hostile class name or file must not change that.
DIRECTIVES = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",
    "media-src": "'self' blob:",
    "connect-src": "'self'",
    "manifest-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
}


def content_security_policy(**changes: str) -> str:
    """The policy as a header has it; changes: further directives and other values, with _ for -."""
    directives = DIRECTIVES | {name.replace("_", "-"): value for name, value in changes.items()}
    return "; ".join(f"{name} {value}" for name, value in directives.items())
