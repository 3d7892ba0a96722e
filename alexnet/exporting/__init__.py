"""Networks handed on: to other runtimes, to other libraries, to the browser."""
