"""Kest against its executable specification (``tests/reference``), on generated input."""
