"""How fast the package is on this machine, beside what people would otherwise run; see `measure.py`."""
