"""What asv measures of each commit: processor time on one thread, so that other programs disturb little.

Only what every commit of the last versions has may be used here. `benchmarks/asv.conf.json` has the settings, and
docs/internals/measuring.md the commands.
"""
