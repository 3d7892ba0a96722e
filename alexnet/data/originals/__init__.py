"""Data sets in the form in which they are published: read in place, recognised from what is there."""
