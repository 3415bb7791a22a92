"""The doors: every file that holds a client's socket or answers an HTTP request."""
