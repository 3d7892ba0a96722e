"""The page of `alexnet serve` as files for any web server, with the network inside: it runs in the browser."""
