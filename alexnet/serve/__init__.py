"""The web page and the HTTP API behind it: `alexnet serve`. docs/serving.md describes both."""
