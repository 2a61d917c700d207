"""The source distribution and the wheels of a release: built, repaired, compared, described and tried (docs/packaging.md).

Standard library only: the tools it runs are installed into environments of their own. Not part of the wheel.
"""
