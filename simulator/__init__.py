"""Believable stand-ins for the services at both ends of the server.

`simulator.openai` answers the Realtime API (GA protocol). They are programs of their own: started by the command line
for demonstrations, by the tests, and by developers whose app must be tried without an account.
"""
