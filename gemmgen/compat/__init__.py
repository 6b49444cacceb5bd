"""Modules that follow another library's interface, for programs that were written against it."""
