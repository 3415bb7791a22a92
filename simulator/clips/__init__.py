"""Recorded phrases, numbers, letters and common words for machines without a speech engine."""
