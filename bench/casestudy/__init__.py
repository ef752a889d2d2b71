"""The case study: a simulated year of operating the desk, composed from lives that were really run.

reel     recorded days, drawn and laid out on the exchange's calendar
model    the stated rates, with their sources, and what they draw
life     one fault from its ship day on: what the guard sees, what a person sees without it
gates    what each merge gate finds of a fault
bank     lives and gates kept in a folder, each run once
year     changes, incidents, recurrence, intervals
page     the table, the plots, the docs page
"""
