"""The case study: a simulated year of operations, composed of real runs of the desk.

reel     recorded days, drawn and placed on the exchange's calendar
model    the stated rates, with their sources, and the operations drawn from them
life     one run of a fault from its ship day on, and who detects it
gates    which faults each merge gate catches
bank     the stored runs and gate results, each run once
year     changes, incidents, recurrence, intervals
page     the table, the plots, the docs page
"""
