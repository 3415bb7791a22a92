"""Capacity and cost of this server on the machine at hand, and the same load through nginx and a naive relay.

    python -m bench.compare --help     one interleaved run over several systems, figures as ratios
    python -m bench.profiler --help    where the server's time goes under load
    python -m bench.report             docs/performance.md from the result of a run
    ./voice bench                      the operator's own machine, without any of the comparisons

The load is made by processes of their own (`clients`, `upstream`), so cheap that the system under test is what is
measured. Everything stays on loopback.
"""
