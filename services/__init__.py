"""The world outside, one system a file; each is handed its client by server.py."""
