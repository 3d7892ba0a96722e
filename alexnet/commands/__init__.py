"""The bodies of the commands: from what was typed to a call of the library, and from its record to what is printed."""
