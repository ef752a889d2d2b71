"""A process under test behind FIX: any command line, its connection, its state stores and its trading days."""
