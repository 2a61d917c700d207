"""Kest's formats as a slow, obvious, executable specification.

Written from PRODUCT.md and the RFCs, never from the implementation: nothing in this package imports ``kest``. Where
the two disagree, one of them is wrong, and the differential tests say so.
"""
