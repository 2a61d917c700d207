"""Real servers for tests, examples and the lab: built once into a cache folder, started on 127.0.0.1, ended with us.

Standard library only, so that the build runs before anything is installed. Not part of the wheel.
"""
