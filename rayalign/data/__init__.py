"""Preference data that exists already, and what makes some: readers, writers, drawn styles. No Ray."""
