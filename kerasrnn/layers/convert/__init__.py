"""Nets of other libraries as layers of this package, and back."""
