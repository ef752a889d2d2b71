"""A process under test behind FIX: any command line, its connection, its state where it lives, and its days."""
